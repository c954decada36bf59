/*
 * Text of strangers (a function's output, a name, an error's message) on a terminal: a control character in it is a
 * command to the terminal, such as "set the title", "answer with what is selected" or "go up and write over it".
 */

/** C0 but tab and newline, DEL, C1, and the marks that turn the direction of text. */
// eslint-disable-next-line no-control-regex
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
/** What our own colours are (SGR, "select graphic rendition"), and nothing else that begins with ESC. */
// eslint-disable-next-line no-control-regex
const COLOUR = /(\u001b\[[0-9;]*m)/;

const shownCharacter = (character: string): string => {
  const code = character.charCodeAt(0);
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
};

/** The text with every control character but tab and newline written out (`\x1b`). `\r\n` counts as a newline. */
export const visible = (text: string): string => text.replaceAll("\r\n", "\n").replaceAll(UNSEEN, shownCharacter);

/** The same for a line of ours, whose colours stay. */
export const visibleButColours = (text: string): string =>
  text
    .split(COLOUR)
    .map((part, index) => (index % 2 === 1 ? part : visible(part)))
    .join("");

/** JSON that a terminal takes for text as well: what JSON leaves as it is, DEL and C1 and the marks of direction, is escaped. */
export const visibleJson = (value: unknown): string =>
  JSON.stringify(value).replaceAll(
    UNSEEN,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
