import { existsSync, readFileSync } from "node:fs";

/*
 * The keys of a data directory, by name: AWS's shared credentials file, so `AWS_SHARED_CREDENTIALS_FILE` can point to it and
 * `AWS_PROFILE` choose among them. AWS's tools pass over members that they do not know.
 */

export interface NamedKey {
  readonly name: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** ISO 8601; null for one that an earlier Hearth made. */
  readonly createdAt: string | null;
}

export const KEY_NAME_DEFAULT = "default";
/** The section of a key, and its members. */
const SECTION = /^\[([\w.-]{1,64})\]$/;
const CREATED = "hearth_created_at";

export const isKeyName = (name: string): boolean => SECTION.test(`[${name}]`);

/** The keys in such a text, in its order. A section without both parts of a key is none. */
export const parseKeys = (text: string): NamedKey[] => {
  const sections = new Map<string, Map<string, string>>();
  let members: Map<string, string> | null = null;
  for (const line of text.split("\n").map((each) => each.trim())) {
    const name = SECTION.exec(line)?.[1];
    const at = line.indexOf("=");
    if (name !== undefined) sections.set(name, (members = new Map<string, string>()));
    else if (at > 0) members?.set(line.slice(0, at).trim(), line.slice(at + 1).trim());
  }
  return [...sections].flatMap(([name, of]) => {
    const accessKeyId = of.get("aws_access_key_id");
    const secretAccessKey = of.get("aws_secret_access_key");
    if (!accessKeyId || !secretAccessKey) return [];
    return [{ name, accessKeyId, secretAccessKey, createdAt: of.get(CREATED) ?? null }];
  });
};

export const formatKeys = (keys: readonly NamedKey[]): string =>
  keys
    .map(({ name, accessKeyId, secretAccessKey, createdAt }) => {
      const created = createdAt === null ? "" : `${CREATED} = ${createdAt}\n`;
      return `[${name}]\naws_access_key_id = ${accessKeyId}\naws_secret_access_key = ${secretAccessKey}\n${created}`;
    })
    .join("\n");

/** The keys in a file; none when it cannot be read. */
export const readKeyFile = (file: string): NamedKey[] => {
  if (!existsSync(file)) return [];
  try {
    return parseKeys(readFileSync(file, "utf8"));
  } catch {
    return [];
  }
};
