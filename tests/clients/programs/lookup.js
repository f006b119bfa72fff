// Looks up a name in Node: `lookup.js lookup|resolve NAME [TYPE]`, by the C library or by c-ares.
// Prints one result a line.
const dns = require("node:dns").promises;

const [how, name, type = "A"] = process.argv.slice(2);
const ask = {
  lookup: async () => (await dns.lookup(name, { all: true })).map((found) => found.address),
  resolve: async () => {
    const found = await dns.resolve(name, type);
    if (type !== "SRV") return found;
    return found.map((srv) => [srv.priority, srv.weight, srv.port, srv.name].join(" "));
  },
};

ask[how]().then(
  (lines) => lines.forEach((line) => console.log(line)),
  (error) => {
    console.error(error.code);
    process.exitCode = 1;
  },
);
