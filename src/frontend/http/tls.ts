import { createPrivateKey, X509Certificate } from "node:crypto";
import { statSync } from "node:fs";
import type { Server } from "node:https";
import type { Clock, Timer } from "../../lib/clock.ts";
import { readSmallFile } from "../../lib/files.ts";
import type { Logger } from "../../telemetry/index.ts";
import { TLS_EXPIRY_WARN_MS, TLS_FILE_BYTES_MAX, TLS_LOOK_MS, TLS_WARN_EVERY_MS } from "./limits.ts";

/** Files in PEM: a certificate with the chain behind it, and its private key. */
export interface TlsFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

interface Pair {
  readonly cert: Buffer;
  readonly key: Buffer;
  /** Unix ms. */
  readonly expiresAtMs: number;
}

/** A file and what is in it. Throws an Error that names both. */
const part = <T>(file: string, what: string, parse: (bytes: Buffer) => T): readonly [Buffer, T] => {
  try {
    const bytes = readSmallFile(file, TLS_FILE_BYTES_MAX);
    return [bytes, parse(bytes)];
  } catch (error) {
    throw new Error(`${file} must hold ${what} in PEM: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
};

/** Reads a pair and checks that its parts belong together. Throws an Error that names the file. */
const readPair = ({ certFile, keyFile }: TlsFiles): Pair => {
  const [cert, parsed] = part(certFile, "a certificate", (bytes) => new X509Certificate(bytes));
  const [key, privateKey] = part(keyFile, "a private key without a passphrase", (bytes) => createPrivateKey(bytes));
  if (!parsed.checkPrivateKey(privateKey)) throw new Error(`The key in ${keyFile} is not that of ${certFile}.`);
  return { cert, key, expiresAtMs: parsed.validToDate.getTime() };
};

/**
 * The certificate that is served: read anew when its files change, so that a renewal needs no restart. A pair that does
 * not fit (one file was replaced, the other not yet) or cannot be read leaves the old one in use, and is told when it stays so.
 */
export class Certificate implements Disposable {
  readonly #files: TlsFiles;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #timers: Timer[];
  #pair: Pair;
  #seen: string;
  #problem: string | null = null;
  #server: Server | null = null;

  /** Throws an Error for a person when the files hold no pair. */
  constructor(files: TlsFiles, clock: Clock, log: Logger) {
    this.#files = files;
    this.#clock = clock;
    this.#log = log;
    this.#seen = this.#stamp();
    this.#pair = readPair(files);
    this.#timers = [clock.every(TLS_LOOK_MS, () => this.#look()), clock.every(TLS_WARN_EVERY_MS, () => this.#warn())];
    this.#warn();
  }

  get current(): Pair {
    return this.#pair;
  }

  /** Keeps this server's certificate up to date. */
  serve(server: Server): void {
    this.#server = server;
  }

  #stamp(): string {
    const { certFile, keyFile } = this.#files;
    return [certFile, keyFile]
      .map((file) => statSync(file, { throwIfNoEntry: false }))
      .map((stats) => (stats === undefined ? "missing" : `${stats.mtimeMs} ${stats.size} ${stats.ino}`))
      .join(",");
  }

  #look(): void {
    const stamp = this.#stamp();
    if (stamp === this.#seen && this.#problem === null) return;
    try {
      const pair = readPair(this.#files);
      this.#server?.setSecureContext({ cert: pair.cert, key: pair.key });
      this.#pair = pair;
      this.#seen = stamp;
      this.#problem = null;
      this.#log.info({ expiresAt: new Date(pair.expiresAtMs).toISOString() }, "a new certificate is served");
      this.#warn();
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      // Told at the second look: the files of a renewal are replaced one after the other.
      if (this.#problem === null) this.#problem = "";
      else if (this.#problem !== problem) {
        this.#problem = problem;
        this.#log.error({ problem }, "the changed certificate cannot be used; the old one is served on");
      }
      this.#seen = stamp;
    }
  }

  #warn(): void {
    const leftMs = this.#pair.expiresAtMs - this.#clock.wallMs();
    if (leftMs > TLS_EXPIRY_WARN_MS) return;
    const expiresAt = new Date(this.#pair.expiresAtMs).toISOString();
    const message = leftMs > 0 ? "the certificate expires soon" : "the certificate has expired: clients refuse it";
    this.#log.warn({ expiresAt, file: this.#files.certFile }, `${message}; replace its files, Hearth reads them again`);
  }

  [Symbol.dispose](): void {
    for (const timer of this.#timers) timer[Symbol.dispose]();
  }
}
