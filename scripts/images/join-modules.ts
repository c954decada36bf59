import { readFile } from "node:fs/promises";
import { join } from "node:path";

/** An import from a file beside it, over one line or several. */
const OWN_IMPORT = /^import \{([^}]*)\} from "\.\/([\w-]+\.mjs)";\n/gm;

/**
 * Joins a module and those that it imports from its own folder into one text, each after the ones it needs:
 * a guest opens one file instead of many. Works for modules with named exports whose top-level names differ
 * among each other; two with the same name are an error.
 */
export async function joinModules(folder: string, entry: string): Promise<string> {
  const texts = new Map<string, string>();
  const visit = async (file: string): Promise<void> => {
    if (texts.has(file)) return;
    texts.set(file, "");
    const text = await readFile(join(folder, file), "utf8");
    for (const [, , needed = ""] of text.matchAll(OWN_IMPORT)) await visit(needed);
    // Set anew, so that it comes after what it needs.
    texts.delete(file);
    texts.set(file, text.replace(OWN_IMPORT, "").replace(/^export (?=(async )?(const|let|class|function)\b)/gm, ""));
  };
  await visit(entry);
  const joined = [...texts.values()].join("\n");
  const names = [...joined.matchAll(/^(?:const|let|class|(?:async )?function) (\w+)/gm)].map(([, name = ""]) => name);
  const twice = names.filter((name, index) => names.indexOf(name) !== index);
  if (twice.length > 0) throw new Error(`${folder}: the name ${twice[0]} is at the top level of two modules`);
  return joined;
}
