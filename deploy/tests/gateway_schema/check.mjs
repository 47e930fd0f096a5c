// Check documents of the Gateway API (JSON, on standard input) against its types; print each problem on a line.
import { readFileSync } from "node:fs";

const schema = (kind) => import(`@kubernetes-models/gateway-api/_schemas/IoK8sSigsGatewayApiApisV1${kind}`);

for (const document of JSON.parse(readFileSync(0, "utf8"))) {
  const { validate } = await schema(document.kind);
  // The checks allow further fields, and never read them: a field that nothing reads is not in the schema.
  const read = new Set();
  const watched = (value, path) =>
    value === null || typeof value !== "object" ? value : new Proxy(value, {
      get(target, key) {
        read.add(`${path}/${String(key)}`);
        return watched(target[key], `${path}/${String(key)}`);
      },
    });
  validate(watched(document, ""));
  for (const error of validate.errors ?? []) console.log(`${document.kind}${error.instancePath} ${error.keyword}`);
  const walk = (value, path) => {
    if (value === null || typeof value !== "object") return;
    for (const [key, inner] of Object.entries(value)) {
      if (read.has(`${path}/${key}`)) walk(inner, `${path}/${key}`);
      else console.log(`${document.kind}${path}/${key} unknown`);
    }
  };
  walk(document, "");
}
