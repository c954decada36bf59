import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { BASE_IMAGE, isRuntimeName, runtimeOf } from "../runtimes/catalog.ts";
import type { ImageManifest } from "../runtimes/catalog.ts";
import { serviceFailure } from "../wire/errors.ts";

/** What a runtime needs in the guest. */
export interface RuntimeImage {
  /** EROFS images to stack over the base, lowest first; none for `provided`. */
  readonly drives: readonly string[];
  /** Command line. */
  readonly argv: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** Variables that the runtime reads only as it starts; null where it cannot be started before its function is known. */
  readonly readAtStart: RegExp | null;
  /** For the INIT_START line. */
  readonly version: string;
  readonly versionArn: string;
}

/** The base image and the runtimes' images on this host. */
export interface RuntimeImages {
  /** Folder of all of them: none is secret, every microVM may read them. */
  readonly directory: string;
  /** Path of the base image: the root of every microVM. */
  readonly base: string;
  /** Throws `ServiceError` when the runtime has no image here. */
  runtime(name: string, region: string): RuntimeImage;
}

/** Reads the images that set-up built. Throws with what to do when there are none. */
export const loadRuntimeImages = async (directory: string): Promise<RuntimeImages> => {
  const path = join(directory, "manifest.json");
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    throw new Error(`There are no guest images at ${directory}. Make them with "./hearth setup".`, { cause: error });
  });
  const manifest = JSON.parse(text) as Partial<ImageManifest>;
  const base = manifest[BASE_IMAGE]?.file;
  if (base === undefined) throw new Error(`${path} names no base image. Make it again with "./hearth setup".`);
  const made = new Map<string, RuntimeImage>();
  return {
    directory,
    base: join(directory, base),
    runtime: (name, region) => {
      const key = `${name} ${region}`;
      const image = made.get(key) ?? runtimeImage(directory, manifest, name, region);
      made.set(key, image);
      return image;
    },
  };
};

const runtimeImage = (
  directory: string,
  manifest: Partial<ImageManifest>,
  name: string,
  region: string,
): RuntimeImage => {
  const entry = isRuntimeName(name) ? manifest[name] : undefined;
  if (!isRuntimeName(name) || entry === undefined) {
    throw serviceFailure(`The runtime ${name} has no image on this worker. Make it with "./hearth setup".`);
  }
  const runtime = runtimeOf(name);
  const digest = entry.digest ?? createHash("sha256").update(runtime.versionText).digest("hex");
  return {
    drives: entry.file === undefined ? [] : [join(directory, entry.file)],
    argv: runtime.argv,
    environment: runtime.environment,
    readAtStart: runtime.readAtStart ?? null,
    version: runtime.versionText,
    versionArn: `arn:aws:lambda:${region}::runtime:${digest}`,
  };
};
