import { Writable } from "node:stream";
import pretty from "pino-pretty";
import { visibleButColours } from "../lib/visible.ts";
import type { TextSink } from "./log-output.ts";

/** Hands on at once what it gets, with what would command a terminal written out: a guest's console is in it, too. */
const visibleOn = (destination: TextSink): Writable =>
  new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      destination.write(visibleButColours(chunk.toString("utf8")));
      done();
    },
  });

/** Turns pino's JSON lines into readable ones on `destination`, in order and at once. */
export const pinoPretty = (destination: TextSink, colours: boolean): NodeJS.WritableStream =>
  pretty({
    colorize: colours,
    translateTime: "SYS:HH:MM:ss.l",
    ignore: "pid,hostname",
    singleLine: true,
    sync: true,
    destination: visibleOn(destination),
  });
