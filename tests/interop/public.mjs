// Plain files and folders and Helia: the same CIDs, and each other's CAR files.
//
//   node public.mjs add DIR PROFILE FILE.car    adds a folder as Helia does, writes the CAR; one JSON object: { root, files }
//   node public.mjs read FILE.car DIR           reads a CAR with Helia's modules and compares it with a folder;
//                                               { root, files, problems }, exit code 1 where anything differs
//
// Owns: the check that what one of the two makes, the other reads, byte for byte. The hash of every block is checked here.

import { createReadStream, createWriteStream } from 'node:fs'
import { readFile, readdir, readlink, lstat } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { CarBlockIterator, CarWriter } from '@ipld/car'
import { MemoryBlockstore } from 'blockstore-core'
import { exporter } from 'ipfs-unixfs-exporter'
import { importer } from 'ipfs-unixfs-importer'
import { CID } from 'multiformats/cid'
import { sha256 } from 'multiformats/hashes/sha2'

/** Everything below a folder but links, which Helia's importer does not add, and hidden names, which nobody does. */
async function * files (dir, prefix) {
  const entries = await readdir(dir, { withFileTypes: true })
  if (entries.length === 0) yield { path: prefix }
  for (const entry of entries) {
    if (entry.name.startsWith('.')) continue
    const path = `${prefix}/${entry.name}`
    if (entry.isDirectory()) yield * files(join(dir, entry.name), path)
    else if (entry.isFile()) yield { path, content: createReadStream(join(dir, entry.name)) }
  }
}

async function add (dir, profile, car) {
  const blocks = new Map()
  const memory = new MemoryBlockstore()
  const store = {
    get: (cid, options) => memory.get(cid, options),
    put: (cid, bytes, options) => { blocks.set(cid.toString(), { cid, bytes }); return memory.put(cid, bytes, options) }
  }
  let root
  let count = 0
  for await (const entry of importer(files(dir, 'd'), store, { profile, wrapWithDirectory: false })) {
    root = entry.cid
    count++
  }
  const { writer, out } = CarWriter.create([root])
  const written = pipeline(Readable.from(out), createWriteStream(car))
  for (const block of blocks.values()) await writer.put(block)
  await writer.close()
  await written
  return { root: root.toString(), files: count }
}

async function read (car, dir) {
  const problems = []
  const store = new MemoryBlockstore()
  const reader = await CarBlockIterator.fromIterable(createReadStream(car))
  const [root] = await reader.getRoots()
  for await (const { cid, bytes } of reader) {
    const digest = await sha256.digest(bytes)
    if (!CID.create(1, cid.code, digest).equals(cid.toV1())) problems.push(`${cid}: its bytes have another hash`)
    await store.put(cid, bytes)
  }
  let count = 0
  const todo = [[root, dir]]
  while (todo.length > 0) {
    const [cid, path] = todo.pop()
    const entry = await exporter(cid, store)
    const about = await lstat(path)
    if (entry.type === 'directory') {
      const names = []
      for await (const child of entry.entries()) names.push(child)
      const expected = (await readdir(path)).filter(name => !name.startsWith('.')).sort()
      const found = names.map(child => child.name).sort()
      if (JSON.stringify(found) !== JSON.stringify(expected)) problems.push(`${path}: other names`)
      for (const child of names) todo.push([child.cid, join(path, child.name)])
    } else if (about.isSymbolicLink()) {
      const target = Buffer.from(entry.unixfs?.data ?? []).toString()
      if (target !== await readlink(path)) problems.push(`${path}: leads to ${target}`)
    } else {
      const parts = []
      for await (const part of entry.content()) parts.push(part)
      if (!Buffer.concat(parts).equals(await readFile(path))) problems.push(`${path}: other bytes`)
    }
    count++
  }
  return { root: root.toString(), files: count, problems }
}

const [command, ...rest] = process.argv.slice(2)
const report = command === 'add' ? await add(...rest) : await read(...rest)
console.log(JSON.stringify(report))
process.exit(report.problems?.length > 0 ? 1 : 0)
