// OpenAI's own client for Node, unchanged but for its address and key: one call of each kind, told as one JSON object.
import OpenAI, { toFile } from "openai";

const [baseURL, apiKey, model, embedder] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const question = "What may a hotel cost at most?";
const messages = [{ role: "user", content: question }];
const told = {};

told.models = [];
for await (const one of client.models.list()) told.models.push(one.id);

const reply = await client.chat.completions.create({ model, messages });
told.chat = reply.choices[0].message.content;
told.annotations = reply.choices[0].message.annotations.length;

told.streamed = "";
const stream = await client.chat.completions.create({ model, messages, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) {
  told.streamed += chunk.choices[0]?.delta?.content ?? "";
  if (chunk.usage) told.streamedTokens = chunk.usage.total_tokens;
}

const vectors = await client.embeddings.create({ model: embedder, input: ["A hotel", "A train"] });
told.dimensions = vectors.data.map((one) => one.embedding.length);

const text = "# Meals\n\nLunch for a guest may cost at most 31 EUR.\n";
const file = await client.files.create({ file: await toFile(Buffer.from(text), "meals.md"), purpose: "assistants" });
told.content = await (await client.files.content(file.id)).text();
const store = await client.vectorStores.create({ name: "meals" });
const member = await client.vectorStores.files.createAndPoll(store.id, { file_id: file.id, attributes: { year: 2026 } });
told.member = member.status;
const found = await client.vectorStores.search(store.id, { query: "lunch", filters: { type: "eq", key: "year", value: 2026 } });
told.found = found.data[0].content[0].text;

const tools = [{ type: "file_search", vector_store_ids: [store.id] }];
const response = await client.responses.create({ model, input: "What may lunch cost?", tools });
told.response = response.output_text;
told.cited = response.output.flatMap((item) => item.content ?? []).flatMap((part) => part.annotations).map((one) => one.filename);
told.events = [];
for await (const event of client.responses.stream({ model, input: "What may lunch cost?", tools })) told.events.push(event.type);

const conversation = await client.conversations.create({ metadata: { topic: "meals" } });
await client.responses.create({ model, input: "What may lunch cost?", conversation: conversation.id, max_output_tokens: 16 });
told.items = [];
for await (const item of client.conversations.items.list(conversation.id)) told.items.push(item.role);

let background = await client.responses.create({ model, input: "Say hello.", background: true, max_output_tokens: 16 });
while (["queued", "in_progress"].includes(background.status)) {
  await new Promise((resolve) => setTimeout(resolve, 200));
  background = await client.responses.retrieve(background.id);
}
told.background = background.status;

told.jobs = [];
for await (const job of client.fineTuning.jobs.list()) told.jobs.push(job.id);

try {
  await client.files.retrieve("file-none");
} catch (error) {
  told.error = [error.constructor.name, error.status, error.code, typeof error.requestID];
}
await client.vectorStores.delete(store.id);
await client.files.delete(file.id);
console.log(JSON.stringify(told));
