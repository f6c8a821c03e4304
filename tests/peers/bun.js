// A chat room on Bun, whose WebSocket server and publish/subscribe are uWebSockets, in C++.
// `make bench-peers` compares parlour with it. Usage: bun bun.js ADDRESS:PORT
const [hostname, port] = process.argv[2].split(':');
const server = Bun.serve({
  hostname,
  port,
  fetch(request, server) {
    const query = new URL(request.url).searchParams;
    const data = { name: query.get('name'), room: query.get('room') };
    if (server.upgrade(request, { data })) return;
    return new Response('not an upgrade\n', { status: 400 });
  },
  websocket: {
    perMessageDeflate: false,
    open(socket) {
      socket.subscribe(socket.data.room);
    },
    message(socket, text) {
      const message = { type: 'public', user: socket.data.name, content: JSON.parse(text).content };
      server.publish(socket.data.room, JSON.stringify(message));
    },
  },
});
