import type { Duplex } from "node:stream";

/** Reads a line of a guest's answer, without its end. */
export const readLine = async (stream: Duplex): Promise<string> => {
  const bytes: Buffer[] = [];
  for (;;) {
    const chunk = stream.read(1) as Buffer | null;
    if (chunk === null) {
      if (stream.readableEnded || stream.destroyed)
        throw new Error(`The stream ended after ${JSON.stringify(String(Buffer.concat(bytes)))}`);
      await new Promise<void>((resolve) => {
        const events = ["readable", "end", "close"];
        const go = (): void => {
          for (const event of events) stream.off(event, go);
          resolve();
        };
        for (const event of events) stream.on(event, go);
      });
    } else if (chunk[0] === 0x0a) {
      return String(Buffer.concat(bytes));
    } else {
      bytes.push(chunk);
    }
  }
};

/** Sends a command to the tests' guest program. */
export const tell = (stream: Duplex, command: string): void => {
  stream.write(`${command}\n`);
};
