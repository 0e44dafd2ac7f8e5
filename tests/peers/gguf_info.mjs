// gguf_info MODULES FILE...: what @huggingface/gguf (in the folder MODULES) reads of each file, a JSON object a line.
const { gguf } = await import(process.argv[2] + "/@huggingface/gguf/dist/index.mjs");

for (const path of process.argv.slice(3)) {
    const { metadata, tensorInfos, tensorDataOffset } = await gguf(path, { allowLocalFile: true });
    const tensors = tensorInfos.map((t) => ({ name: t.name, shape: t.shape.map(Number), type: t.dtype, offset: Number(t.offset) }));
    const facts = Object.fromEntries(Object.entries(metadata).filter(([, v]) => typeof v === "string" || typeof v === "number"));
    console.log(JSON.stringify({ path, start: Number(tensorDataOffset), facts, tensors }));
}
