import pretty from "pino-pretty";

/** Turns pino's JSON lines into readable ones on `destination`, in order and at once. */
export const pinoPretty = (destination: NodeJS.WritableStream, colours: boolean): NodeJS.WritableStream =>
  pretty({
    colorize: colours,
    translateTime: "SYS:HH:MM:ss.l",
    ignore: "pid,hostname",
    singleLine: true,
    sync: true,
    destination,
  });
