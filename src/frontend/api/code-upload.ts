import type { FunctionCode } from "@aws-sdk/client-lambda";
import type { FunctionRecord } from "../../store/store.ts";
import { invalidParameter, ServiceError } from "../../wire/errors.ts";
import { CODE_STORAGE_BYTES_MAX } from "../../wire/limits.ts";
import type { ApiServices } from "./context.ts";

type CodeSource = Pick<FunctionCode, "ZipFile" | "S3Bucket" | "S3Key" | "ImageUri">;

/** How a record names uploaded code, which is not collected before this is disposed of. */
export interface StoredCode extends Disposable {
  readonly named: FunctionRecord["code"];
}

/** Stores uploaded code. Throws for sources that are not built, and for bad archives. */
export const storeCode = async (
  { code, store, config }: Pick<ApiServices, "code" | "store" | "config">,
  source: CodeSource,
): Promise<StoredCode> => {
  if (source.ImageUri !== undefined) {
    throw invalidParameter("ImageUri is not supported by Hearth yet. Pass the code as ZipFile.");
  }
  if (source.S3Bucket !== undefined || source.S3Key !== undefined) {
    throw invalidParameter("Code in S3 (S3Bucket, S3Key) is not supported by Hearth yet. Pass the code as ZipFile.");
  }
  if (source.ZipFile === undefined) throw invalidParameter("Please provide a source for function code.");
  const { codeBytes } = await store.usage(config.accountId);
  if (codeBytes + source.ZipFile.byteLength > CODE_STORAGE_BYTES_MAX) {
    throw new ServiceError("CodeStorageExceededException", 400, "Code storage limit exceeded.", { Type: "User" });
  }
  const image = await code.put(source.ZipFile);
  const sha256Base64 = Buffer.from(image.digest, "hex").toString("base64");
  return {
    named: { digest: image.digest, sha256Base64, bytes: image.zipBytes },
    [Symbol.dispose]: () => image[Symbol.dispose](),
  };
};
