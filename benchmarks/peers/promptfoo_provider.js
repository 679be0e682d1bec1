// promptfoo's provider for the workload; its settings say which task it is.
const { execFile } = require('node:child_process');
const fs = require('node:fs/promises');
const os = require('node:os');
const path = require('node:path');
const { promisify } = require('node:util');

const run = promisify(execFile);

async function copy(prompt) {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'cp-'));
  const source = path.join(folder, 'prompt');
  const target = path.join(folder, 'output');
  await fs.writeFile(source, prompt);
  await run('/bin/cp', [source, target]);
  const text = await fs.readFile(target, 'utf8');
  await fs.rm(folder, { recursive: true });
  return text;
}

module.exports = class Workload {
  constructor(options) {
    this.task = options.config.task;
  }

  id() {
    return this.task;
  }

  async callApi(prompt) {
    if (this.task === 'copy') {
      return { output: await copy(prompt) };
    }
    if (this.task === 'sleeping') {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return { output: prompt };
  }
};
