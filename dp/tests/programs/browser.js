// A site that a browser is let loose on: its page tries everything, and says on standard output what came of it.

const crypto = require('crypto');
const http = require('http');

const PAGE = `<!doctype html><title>shop</title><script>
const text = async (path, options) => (await fetch(path, options)).text();
const tries = {
  protocol: async () => performance.getEntriesByType('navigation')[0].nextHopProtocol,
  secure: async () => isSecureContext && location.protocol === 'https:',
  parallel: async () => {
    const all = await Promise.all([...Array(100).keys()].map((number) => text('/echo?' + number)));
    return all.every((body, number) => body === 'GET /echo?' + number + ' 0');
  },
  upload: async () => text('/echo', { method: 'POST', body: 'x'.repeat(300000) }),
  large: async () => (await text('/large')).length,
  missing: async () => (await fetch('/missing')).status,
  empty: async () => (await fetch('/empty')).status,
  head: async () => (await fetch('/large', { method: 'HEAD' })).headers.get('content-length'),
  redirect: async () => { const got = await fetch('/redirect'); return got.redirected && new URL(got.url).pathname; },
  cookie: async () => { await fetch('/cookie'); return text('/cookie'); },
  // The rest of the body comes when the page has said that the first part is there.
  streamed: async () => {
    const reader = (await fetch('/streamed')).body.getReader();
    const first = new TextDecoder().decode((await reader.read()).value);
    await fetch('/go-on');
    let rest = '';
    for (let part; !(part = await reader.read()).done;) rest += new TextDecoder().decode(part.value);
    return first + ',' + rest;
  },
  events: () => new Promise((resolve, reject) => {
    const seen = [];
    const source = new EventSource('/events');
    source.onerror = reject;
    source.onmessage = (event) => { seen.push(event.data); if (seen.length === 3) { source.close(); resolve(seen.join()); } };
  }),
  socket: () => new Promise((resolve, reject) => {
    const socket = new WebSocket(location.origin.replace('http', 'ws') + '/socket');
    const long = 'y'.repeat(70000);
    const seen = [];
    socket.onerror = () => reject(new Error('the socket broke'));
    socket.onopen = () => { socket.send('hello'); socket.send(long); };
    socket.onmessage = (event) => {
      seen.push(event.data);
      if (seen.length === 2) socket.close(1000, 'done');
    };
    socket.onclose = (event) => resolve([seen[0], seen[1] === long, event.wasClean, event.code].join());
  }),
};
(async () => {
  const found = {};
  for (const [name, attempt] of Object.entries(tries)) {
    try { found[name] = await attempt(); } catch (error) { found[name] = 'failed: ' + error; }
  }
  await fetch('/report', { method: 'POST', body: JSON.stringify(found) });
})();
</script>`;

let goOn = () => {};

const paths = {
  '/': (request, response) => response.setHeader('content-type', 'text/html').end(PAGE),
  '/echo': (request, response, body) => response.end(`${request.method} ${request.url} ${body.length}`),
  '/large': (request, response) => response.setHeader('content-length', 500000).end('z'.repeat(500000)),
  '/empty': (request, response) => response.writeHead(204).end(),
  '/redirect': (request, response) => response.writeHead(302, { location: '/echo' }).end(),
  '/cookie': (request, response) => response.setHeader('set-cookie', 'basket=7; HttpOnly').end(request.headers.cookie || ''),
  '/streamed': (request, response) => { goOn = () => response.end('rest'); response.write('first'); },
  '/go-on': (request, response) => { goOn(); response.end(); },
  '/events': (request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    for (const number of [1, 2, 3]) response.write(`data: ${number}\n\n`);
  },
  '/report': (request, response, body) => { console.log(body); response.end(); },
};

const server = http.createServer((request, response) => {
  let body = '';
  request.on('data', (data) => { body += data; });
  request.on('end', () => {
    const answer = paths[request.url.split('?')[0]];
    if (answer) answer(request, response, body); else response.writeHead(404).end();
  });
});

// Frames of the WebSocket protocol, sent back as they come, without the mask.
server.on('upgrade', (request, socket) => {
  const key = request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
  const accept = crypto.createHash('sha1').update(key).digest('base64');
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
  let held = Buffer.alloc(0);
  socket.on('error', () => {});
  socket.on('data', (data) => {
    held = Buffer.concat([held, data]);
    for (;;) {
      if (held.length < 2) return;
      const short = held[1] & 127;
      const start = { 126: 4, 127: 10 }[short] || 2;
      if (held.length < start + 4) return;
      const length = short === 126 ? held.readUInt16BE(2) : short === 127 ? Number(held.readBigUInt64BE(2)) : short;
      if (held.length < start + 4 + length) return;
      const head = Buffer.from(held.subarray(0, start));
      head[1] &= 127;
      const mask = held.subarray(start, start + 4);
      const payload = Buffer.from(held.subarray(start + 4, start + 4 + length)).map((byte, at) => byte ^ mask[at % 4]);
      held = held.subarray(start + 4 + length);
      socket.write(Buffer.concat([head, payload]));
      if ((head[0] & 15) === 8) socket.end();
    }
  });
});

server.listen(0, '127.0.0.1', () => console.log(server.address().port));
