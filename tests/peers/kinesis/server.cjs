// Starts the server at a port of the system's choice and says which. Each line of standard input is a number of milliseconds by
// which its clock is put forward: that is how iterators expire and records are forgotten within a test. Ends with its input.
const now = Date.now;
let ahead = 0;
Date.now = () => now() + ahead;

const server = require("kinesalite")({ createStreamMs: 20, updateStreamMs: 20, deleteStreamMs: 20, shardLimit: 50 });
server.listen(0, "127.0.0.1", () => console.log(`listening ${server.address().port}`));

require("readline").createInterface({ input: process.stdin })
  .on("line", (line) => { ahead += Number(line); console.log(`ahead ${ahead}`); })
  .on("close", () => process.exit(0));
