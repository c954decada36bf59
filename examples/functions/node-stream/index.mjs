// An answer that streams: the client sees each line when it is written.
//
//   hearth deploy examples/functions/node-stream
//   Call it with InvokeWithResponseStream of any AWS SDK.
export const handler = awslambda.streamifyResponse(async (event, responseStream) => {
  responseStream.setContentType("text/plain");
  for (let line = 1; line <= (event.lines ?? 5); line += 1) {
    responseStream.write(`line ${line}\n`);
    await new Promise((resolve) => setTimeout(resolve, event.pauseMs ?? 100));
  }
  responseStream.end();
});
