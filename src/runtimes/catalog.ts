/**
 * The runtimes there are, each with its command line and its environment: the one place that knows them.
 * The image build makes an image for each, the frontend accepts their names, the worker starts them.
 *
 * Paths are those inside the guest, where Lambda has them ("Lambda runtime environment variables" in AWS's
 * developer guide): the language in /var/lang, the runtime client in /var/runtime, the function in /var/task,
 * layers in /opt.
 */

export type RuntimeName = "nodejs22.x" | "nodejs24.x" | "python3.11" | "provided.al2023" | "provided.al2";

/** Name of the image that lies under every runtime's. */
export const BASE_IMAGE = "base";

export interface Runtime {
  readonly name: RuntimeName;
  readonly family: "nodejs" | "python" | "provided";
  /** Command line of the runtime process; the first argument is an absolute path in the guest. */
  readonly argv: readonly string[];
  /**
   * Only where the function brings its own runtime: the places of its executable, the first that exists is
   * `argv[0]`. Whoever starts the runtime knows what lies in the code and the layers and picks;
   * knowing nothing, `argv` names the place where nearly all have it.
   */
  readonly bootstrapSearch?: readonly string[];
  /** Variables that the runtime gets beside those of the function: `NAME` → value. */
  readonly environment: Readonly<Record<string, string>>;
  /**
   * Only where the runtime can be started before its function is known (our own clients ask for it): names of
   * variables that a process reads as it starts and cannot take up later. A function that sets one of them otherwise
   * gets its runtime started anew.
   */
  readonly readAtStart?: RegExp;
  /** False where the runtime is the base image and nothing more. */
  readonly hasImage: boolean;
  /** As in the log line INIT_START. */
  readonly versionText: string;
  /** ISO date after which the runtime's makers end their support. */
  readonly supportedUntil?: string;
}

/** One image, as `build/images/manifest.json` has it. */
export interface ImageEntry {
  /** Absent for a runtime without an image of its own. File name in the manifest's folder. */
  readonly file?: string;
  /** SHA-256 of the file, hex. */
  readonly digest?: string;
  readonly bytes?: number;
  readonly argv?: readonly string[];
  readonly bootstrapSearch?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
}

/** `build/images/manifest.json`: `base` and every runtime by name. */
export type ImageManifest = { readonly [BASE_IMAGE]: ImageEntry } & Readonly<Record<RuntimeName, ImageEntry>>;

/** The same for all runtimes. `PATH` keeps the slash of AWS's own value. */
const COMMON_ENVIRONMENT: Readonly<Record<string, string>> = {
  PATH: "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
  LD_LIBRARY_PATH: "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
  LANG: "en_US.UTF-8",
  TZ: ":UTC",
  LAMBDA_TASK_ROOT: "/var/task",
  LAMBDA_RUNTIME_DIR: "/var/runtime",
};

/**
 * A microVM lives on one CPU: V8's helper threads could only take turns with the main thread, at the price of
 * a switch between them each time. `--single-threaded` keeps compiler and collector on the main thread.
 */
const NODE_FLAGS: readonly string[] = ["--single-threaded"];
/** What Lambda switches off in its Node 22: ES modules through `require`, and guessing them by their syntax. */
const NODE_FLAGS_BEFORE_24: readonly string[] = ["--no-experimental-require-module", "--no-experimental-detect-module"];

/**
 * The dynamic linker's, malloc's, the locale's (glibc and ICU), and HOME, below which both languages look for modules.
 * The wrapper is a program that is to start the runtime.
 */
const READ_BY_ALL = "LD_|GLIBC_|MALLOC_|LC_|LANG$|LANGUAGE$|LOCPATH$|TZDIR$|HOME$|AWS_LAMBDA_EXEC_WRAPPER$";

function nodejs(major: 22 | 24, supportedUntil: string): Runtime {
  const layers = `/opt/nodejs/node${major}/node_modules:/opt/nodejs/node_modules`;
  return {
    name: `nodejs${major}.x`,
    family: "nodejs",
    argv: ["/var/lang/bin/node", ...NODE_FLAGS, ...(major < 24 ? NODE_FLAGS_BEFORE_24 : []), "/var/runtime/index.cjs"],
    environment: {
      ...COMMON_ENVIRONMENT,
      NODE_PATH: `${layers}:/var/runtime/node_modules:/var/runtime:/var/task`,
      AWS_EXECUTION_ENV: `AWS_Lambda_nodejs${major}.x`,
    },
    // NODE_OPTIONS and all other switches of Node's own; libuv's; OpenSSL's configuration; ICU's data.
    readAtStart: new RegExp(`^(?:${READ_BY_ALL}|NODE_|UV_|OPENSSL_|SSL_|ICU_)`),
    hasImage: true,
    versionText: `nodejs:${major}.v1`,
    supportedUntil,
  };
}

function provided(name: "provided.al2023" | "provided.al2"): Runtime {
  return {
    name,
    family: "provided",
    argv: ["/var/task/bootstrap"],
    bootstrapSearch: ["/var/runtime/bootstrap", "/var/task/bootstrap", "/opt/bootstrap"],
    environment: COMMON_ENVIRONMENT,
    hasImage: false,
    versionText: `${name.replace(".", ":")}.v1`,
  };
}

const RUNTIMES: Readonly<Record<RuntimeName, Runtime>> = {
  "nodejs22.x": nodejs(22, "2027-04-30"),
  "nodejs24.x": nodejs(24, "2028-04-30"),
  "python3.11": {
    name: "python3.11",
    family: "python",
    argv: ["/var/lang/bin/python3.11", "/var/runtime/bootstrap.pyc"],
    environment: {
      ...COMMON_ENVIRONMENT,
      PYTHONPATH: "/var/runtime",
      AWS_EXECUTION_ENV: "AWS_Lambda_python3.11",
    },
    readAtStart: new RegExp(`^(?:${READ_BY_ALL}|PYTHON)`),
    hasImage: true,
    versionText: "python:3.11.v1",
    supportedUntil: "2027-10-31",
  },
  "provided.al2023": provided("provided.al2023"),
  "provided.al2": provided("provided.al2"),
};

/** Every runtime, newest of a family first. */
export function listRuntimes(): readonly Runtime[] {
  return Object.values(RUNTIMES).toSorted((a, b) => (a.family === b.family ? (a.name < b.name ? 1 : -1) : 0));
}

/** Whether `name` is a runtime that can be started here. */
export function isRuntimeName(name: string): name is RuntimeName {
  return Object.hasOwn(RUNTIMES, name);
}

/** Facts about one runtime. */
export function runtimeOf(name: RuntimeName): Runtime {
  return RUNTIMES[name];
}
