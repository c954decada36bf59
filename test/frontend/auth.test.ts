import assert from "node:assert/strict";
import { request } from "node:http";
import type { IncomingMessage } from "node:http";
import { networkInterfaces } from "node:os";
import { after, before, describe, it } from "node:test";
import { Sha256 } from "@aws-crypto/sha256-js";
import * as lambda from "@aws-sdk/client-lambda";
import { SignatureV4 } from "@smithy/signature-v4";
import { arnOf, clientOf, functionInput, KEYS, REGION, startHarness } from "./harness.ts";
import type { Harness } from "./harness.ts";

let at: Harness;
before(async () => {
  at = await startHarness();
  await at.client.send(new lambda.CreateFunctionCommand({ ...(await functionInput("f")), Publish: true }));
});
after(() => at[Symbol.asyncDispose]());

interface Signable {
  readonly method: string;
  readonly protocol: string;
  readonly hostname: string;
  readonly port: number;
  readonly path: string;
  readonly query: Record<string, string>;
  readonly headers: Record<string, string>;
  readonly body?: string;
}

const signer = (changes: object = {}): SignatureV4 =>
  new SignatureV4({ credentials: KEYS, region: REGION, service: "lambda", sha256: Sha256, ...changes });

const FUNCTIONS = "/2015-03-31/functions/";

const signable = (changes: Partial<Signable> = {}): Signable => {
  const { hostname, port, host } = new URL(at.endpoint);
  return {
    method: "GET",
    protocol: "http:",
    hostname,
    port: Number(port),
    path: FUNCTIONS,
    query: {},
    headers: { host },
    ...changes,
  };
};

/** Sends a request byte for byte as it was signed. */
const send = async (
  signed: {
    readonly method: string;
    readonly path: string;
    readonly query?: Readonly<Record<string, unknown>> | undefined;
    readonly headers: Readonly<Record<string, string>>;
    readonly body?: string;
  },
  endpoint: string = at.endpoint,
): Promise<{ readonly status: number | undefined; readonly type: unknown; readonly message: string }> => {
  const { hostname, port } = new URL(endpoint);
  const query = new URLSearchParams(signed.query as Record<string, string>).toString();
  const path = query === "" ? signed.path : `${signed.path}?${query}`;
  const incoming = await new Promise<IncomingMessage>((resolve, reject) => {
    const outgoing = request({ hostname, port, path, method: signed.method, headers: signed.headers }, resolve);
    outgoing.on("error", reject);
    outgoing.end(signed.body);
  });
  let text = "";
  for await (const chunk of incoming.setEncoding("utf8")) text += String(chunk);
  const body = text.startsWith("{") ? (JSON.parse(text) as { message?: string; Message?: string }) : {};
  return {
    status: incoming.statusCode,
    type: incoming.headers["x-amzn-errortype"],
    message: body.message ?? body.Message ?? "",
  };
};

const HEADER = { "x-amz-date": "20260101T000000Z", authorization: "" };

const sign = async (offsetMs: number): Promise<Signable> =>
  (await signer().sign(signable(), { signingDate: new Date(Date.now() + offsetMs) })) as Signable;

describe("signatures in the header", () => {
  it("are good for every form of path that clients send", async () => {
    const names = ["f", "f:1", "f:$LATEST", arnOf("f"), `${arnOf("f")}:$LATEST`];
    for (const FunctionName of names) {
      const answer = await at.client.send(new lambda.InvokeCommand({ FunctionName, Payload: '{"a":"ü"}' }));
      assert.equal(answer.StatusCode, 200, FunctionName);
    }
    for (const Qualifier of ["$LATEST", "1"]) {
      await at.client.send(new lambda.InvokeCommand({ FunctionName: "f", Qualifier }));
    }
    // Colons and dollars as they are, with a trailing slash, and with a query to be sorted.
    for (const path of [`${FUNCTIONS}${arnOf("f")}:$LATEST`, FUNCTIONS, `${FUNCTIONS}f%3A1/`]) {
      const signed = await signer().sign(signable({ path, query: { b: "2 +/=", a: "1", "A-b": "~*'()!" } }));
      assert.equal((await send(signed as Signable)).status, 200, path);
    }
  });

  it("are refused when anything they cover was changed", async () => {
    const body = '{"a":1}';
    const path = `${FUNCTIONS}f/invocations`;
    const { host } = new URL(at.endpoint);
    const original = { method: "POST", path, body, headers: { host, "x-amz-invocation-type": "RequestResponse" } };
    const signed = (await signer().sign(signable(original))) as Signable;
    assert.equal((await send(signed)).status, 200);
    const tampered: readonly Partial<Signable>[] = [
      { body: '{"a":2}' },
      { path: `${FUNCTIONS}f:1/invocations` },
      { query: { Qualifier: "1" } },
      { headers: { ...signed.headers, "x-amz-invocation-type": "Event" } },
      { headers: { ...signed.headers, host: "other.example" } },
      { headers: { ...signed.headers, authorization: (signed.headers["authorization"] ?? "").replace(/.$/, "x") } },
      { headers: { ...signed.headers, "x-amz-content-sha256": "UNSIGNED-PAYLOAD" } },
    ];
    for (const change of tampered) {
      const answer = await send({ ...signed, ...change });
      assert.deepEqual([answer.status, answer.type], [403, "InvalidSignatureException"], JSON.stringify(change));
      assert.match(answer.message, /^The request signature we calculated does not match the signature you provided\./);
    }
  });

  it("may leave the body unsigned, or its hash unsaid", async () => {
    const path = `${FUNCTIONS}f/invocations`;
    const { host } = new URL(at.endpoint);
    const unsigned = { host, "x-amz-content-sha256": "UNSIGNED-PAYLOAD" };
    const open = await signer().sign(signable({ method: "POST", path, headers: unsigned, body: "{}" }));
    assert.equal((await send({ ...(open as Signable), body: '{"changed":true}' })).status, 200);
    const silent = await signer({ applyChecksum: false }).sign(signable({ method: "POST", path, body: "{}" }));
    assert.equal(silent.headers["x-amz-content-sha256"], undefined);
    assert.equal((await send(silent as Signable)).status, 200);
    assert.equal((await send({ ...(silent as Signable), body: "{ }" })).status, 403);
  });

  it("cover every header that steers the request", async () => {
    const path = `${FUNCTIONS}f/invocations`;
    const signed = (await signer().sign(signable({ method: "POST", path, body: "{}" }))) as Signable;
    const added = { ...signed.headers, "x-amz-invocation-type": "Event", "x-amz-log-type": "Tail" };
    const answer = await send({ ...signed, headers: added });
    assert.deepEqual([answer.status, answer.type], [403, "InvalidSignatureException"]);
    assert.equal(
      answer.message,
      "There were headers present in the request which were not signed: x-amz-invocation-type, x-amz-log-type",
    );
    // Those of the transport and of traces are added on the way, rightly.
    const onTheWay = { ...signed.headers, "x-amzn-trace-id": "Root=1-5759e988-bd862e3fe1be46a994272793", via: "p" };
    assert.equal((await send({ ...signed, headers: onTheWay })).status, 200);
    const url = (await signer().presign(signable({ method: "POST", path }), { expiresIn: 60 })) as Signable;
    const event = await send({ ...url, headers: { ...url.headers, "x-amz-invocation-type": "Event" } });
    assert.equal(event.type, "InvalidSignatureException");
  });

  it("leave no body unsigned that others could change, and name no hash that is none", async (context) => {
    const own = Object.values(networkInterfaces())
      .flatMap((each) => each ?? [])
      .find(({ family, internal }) => family === "IPv4" && !internal);
    const path = `${FUNCTIONS}f/invocations`;
    const { host } = new URL(at.endpoint);
    for (const hash of ["STREAMING-UNSIGNED-PAYLOAD-TRAILER", "abc"]) {
      const headers = { host, "x-amz-content-sha256": hash };
      const signed = await signer().sign(signable({ method: "POST", path, headers, body: "{}" }));
      assert.match((await send(signed)).message, /must be UNSIGNED-PAYLOAD or the SHA-256 of the body/);
    }
    if (own === undefined) return context.skip("this machine has no address but the loopback");
    await using outside = await startHarness({ host: own.address });
    const { host: outer, hostname, port } = new URL(`http://${own.address}:${outside.frontend.port}`);
    const request = { method: "POST", path: FUNCTIONS, hostname, port: Number(port), body: "{}" };
    const headers = { host: outer, "x-amz-content-sha256": "UNSIGNED-PAYLOAD" };
    const open = (await signer().sign(signable({ ...request, headers }))) as Signable;
    const refused = await send(open, `http://${outer}`);
    assert.deepEqual([refused.status, refused.type], [403, "InvalidSignatureException"]);
    assert.match(refused.message, /UNSIGNED-PAYLOAD only over TLS or from this machine/);
    const closed = (await signer().sign(signable({ ...request, headers: { host: outer } }))) as Signable;
    assert.equal((await send(closed, `http://${outer}`)).type, "ValidationException");
  });

  it("are of now: five minutes either way", async () => {
    for (const offsetMs of [-290_000, 290_000]) assert.equal((await send(await sign(offsetMs))).status, 200);
    const old = await send(await sign(-310_000));
    assert.deepEqual([old.status, old.type], [403, "InvalidSignatureException"]);
    assert.match(
      old.message,
      /^Signature expired: \d{8}T\d{6}Z is now earlier than \d{8}T\d{6}Z \(\d{8}T\d{6}Z - 5 min\.\)$/,
    );
    const early = await send(await sign(310_000));
    assert.match(
      early.message,
      /^Signature not yet current: \d{8}T\d{6}Z is still later than \d{8}T\d{6}Z \(.* \+ 5 min\.\)$/,
    );
  });

  it("are for this region and service, by a key that is known", async () => {
    const list = new lambda.ListFunctionsCommand({});
    await assert.rejects(clientOf(at.endpoint, { region: "eu-west-1" }).send(list), {
      name: "InvalidSignatureException",
      message: "Credential should be scoped to a valid region: 'us-east-1', not 'eu-west-1'.",
    });
    const other = await send(await signer({ service: "s3" }).sign(signable()));
    assert.equal(other.message, "Credential should be scoped to correct service: 'lambda'.");
    const wrongSecret = clientOf(at.endpoint, { credentials: { ...KEYS, secretAccessKey: "guess" } });
    await assert.rejects(wrongSecret.send(list), { name: "InvalidSignatureException" });
    const unknown = clientOf(at.endpoint, { credentials: { ...KEYS, accessKeyId: "AKIAOTHER" } });
    await assert.rejects(unknown.send(list), {
      name: "UnrecognizedClientException",
      message: "The security token included in the request is invalid.",
    });
  });

  it("are whole: what is missing or malformed is named", async () => {
    const base = signable();
    const headers = (changes: Record<string, string>): Signable => ({
      ...base,
      headers: { ...base.headers, ...changes },
    });
    const none = await send(base);
    assert.deepEqual(
      [none.status, none.type, none.message],
      [403, "MissingAuthenticationTokenException", "Missing Authentication Token"],
    );
    const cases: readonly (readonly [Record<string, string>, RegExp])[] = [
      [{ authorization: "Bearer abc" }, /Unsupported AWS 'algorithm': 'Bearer'/],
      [
        { authorization: "AWS4-HMAC-SHA256" },
        /requires 'Credential' .* requires 'Signature' .* requires 'SignedHeaders' .* 'X-Amz-Date'/,
      ],
      [
        { ...HEADER, authorization: "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=00" },
        /exactly 5 slash-delimited/,
      ],
      [
        {
          authorization: `AWS4-HMAC-SHA256 Credential=${KEYS.accessKeyId}/20260101/us-east-1/lambda/aws4_request, SignedHeaders=host, Signature=00`,
          "x-amz-date": "20260101-yesterday",
        },
        /Date must be in ISO-8601/,
      ],
    ];
    for (const [changes, message] of cases) {
      const answer = await send(headers(changes));
      assert.deepEqual([answer.status, answer.type], [403, "IncompleteSignatureException"]);
      assert.match(answer.message, message);
    }
  });

  it("cover the host, and no headers that were not sent", async () => {
    const signed = (await signer().sign(signable())) as Signable;
    for (const names of ["x-amz-date", "__proto__;host", "constructor;host"]) {
      const authorization = (signed.headers["authorization"] ?? "").replace(
        /SignedHeaders=[^,]+/,
        `SignedHeaders=${names}`,
      );
      const answer = await send({ ...signed, headers: { ...signed.headers, authorization } });
      assert.deepEqual([answer.status, answer.type], [403, "InvalidSignatureException"], names);
    }
  });
});

const presign = async (expiresIn: number, ageMs: number): Promise<Signable> =>
  (await signer().presign(signable(), { expiresIn, signingDate: new Date(Date.now() - ageMs) })) as Signable;

describe("presigned requests", () => {
  it("are good until they expire", async () => {
    assert.equal((await send(await presign(60, 0))).status, 200);
    assert.equal((await send(await presign(3_600, 3_000_000))).status, 200);
    assert.match((await send(await presign(60, 70_000))).message, /^Signature expired: /);
    const good = await presign(60, 0);
    const other = await send({ ...good, query: { ...good.query, MaxItems: "1" } });
    assert.equal(other.type, "InvalidSignatureException");
    const longer = await send({ ...good, query: { ...good.query, "X-Amz-Expires": "999999" } });
    assert.equal(longer.type, "IncompleteSignatureException");
  });
});

describe("a Frontend without signatures", () => {
  it("lets everybody in", async () => {
    await using open = await startHarness({ auth: "none" });
    assert.equal((await fetch(`${open.endpoint}${FUNCTIONS}`)).status, 200);
  });
});
