// A reader of twenty lines: asks once, and comes back with the id of the last event for as long as there is more.
const [url, prompt] = process.argv.slice(2);
const messages = [{ role: 'user', content: prompt }];
const ask = { method: 'POST', body: JSON.stringify({ model: 'm', messages, stream: true }) };
let last = '', text = '', stream = '', token = '', connections = 0;

for (;;) {
  connections += 1;
  let rest = '';
  try {
    const again = stream && fetch(`${url}/v1/streams/${stream}?token=${token}`, { headers: { 'Last-Event-ID': last } });
    const response = await (again || fetch(`${url}/v1/chat/completions`, ask));
    if (response.status === 204) break;
    stream ||= response.headers.get('X-Holdfast-Stream');
    token ||= response.headers.get('X-Holdfast-Read-Token');
    for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
      const blocks = (rest + piece).split('\n\n');
      rest = blocks.pop();
      for (const block of blocks) {
        const line = (name) => block.split('\n').find((one) => one.startsWith(name))?.slice(name.length);
        last = line('id: ') ?? last;
        const data = line('data: ');
        if (data?.startsWith('{')) text += JSON.parse(data).choices?.[0]?.delta?.content ?? '';
      }
    }
  } catch (error) {
    if (error.name !== 'TypeError') throw error; // else it is the network
  }
}
console.log(JSON.stringify({ text, connections }));
