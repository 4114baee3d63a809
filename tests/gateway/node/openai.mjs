// The SDK as its users have it: each line of output is what one call came to. Arguments: a base URL.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const found = createRequire(pathToFileURL(process.env.MODULES + '/')).resolve('openai');
const { default: OpenAI } = await import(pathToFileURL(found).href);
const OpenAIClient = OpenAI.OpenAI ?? OpenAI;
const client = new OpenAIClient({ apiKey: 'no-key', baseURL: process.argv[2] + '/v1', maxRetries: 0 });

async function chat(prompt) {
  let text = '';
  const messages = [{ role: 'user', content: prompt }];
  for await (const chunk of await client.chat.completions.create({ model: 'm', messages, stream: true }))
    text += chunk.choices[0]?.delta?.content ?? '';
  return text;
}

async function responses(prompt) {
  let text = '';
  for await (const event of await client.responses.create({ model: 'm', input: prompt, stream: true })) {
    if (event.type === 'response.output_text.delta') text += event.delta;
    if (event.type === 'error') throw new Error(event.message);
  }
  return text;
}

async function refused() {
  await client.chat.completions.create({ model: 7, messages: [] });
}

const calls = [[chat, 'cut'], [responses, 'cut too'], [chat, 'broken'], [responses, 'broken too'], [refused, '']];
for (const [call, prompt] of calls) {
  let said;
  try {
    said = { text: await call(prompt) };
  } catch (error) {
    said = { error: error.constructor.name, status: error.status ?? null, message: error.message };
  }
  console.log(JSON.stringify(said));
}
