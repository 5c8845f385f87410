// Walks a CAR from its root, block by block, as plain UnixFS, with Helia's modules and nothing of Holdfast's.
//
//   node walk.mjs FILE.car      one JSON object: what was walked; exit code 1 where anything is missing or wrong
//
// Owns: the check that a stranger's IPFS tools can follow what providers store. The hash of every block is checked here,
// since neither the CAR reader nor the block store does it.

import { createReadStream } from 'node:fs'
import { car } from '@helia/car'
import { unixfs } from '@helia/unixfs'
import { CarBlockIterator } from '@ipld/car'
import { MemoryBlockstore } from 'blockstore-core'
import { CID } from 'multiformats/cid'
import { sha256 } from 'multiformats/hashes/sha2'

const report = { blocks: 0, blockBytes: 0, directories: 0, files: 0, fileBytes: 0, reached: 0, names: {}, problems: [] }

function problem (text) {
  if (report.problems.length < 20) report.problems.push(text)
}

/** Hands the blocks on after their hashes were checked. */
async function * checked (reader) {
  for await (const { cid, bytes } of reader) {
    const digest = await sha256.digest(bytes)
    if (!CID.create(1, cid.code, digest).equals(cid)) problem(`${cid}: its bytes have another hash`)
    report.blocks++
    report.blockBytes += bytes.length
    yield { cid, bytes }
  }
}

const memory = new MemoryBlockstore()
const reached = new Set()
// Whatever is read is remembered: at the end, each block must have been.
const blockstore = {
  get: (cid, options) => { reached.add(cid.toString()); return memory.get(cid, options) },
  has: (cid, options) => memory.has(cid, options),
  put: (cid, bytes, options) => memory.put(cid, bytes, options),
  putMany: (source, options) => memory.putMany(source, options)
}
const logger = { forComponent: () => Object.assign(() => {}, { error () {}, trace () {}, newScope: () => logger.forComponent() }) }

const reader = await CarBlockIterator.fromIterable(createReadStream(process.argv[2]))
const roots = await reader.getRoots()
const heliaCar = car({ blockstore, logger, getCodec: () => { throw new Error('not asked for') } })
await heliaCar.import({ blocks: () => checked(reader) })

const fs = unixfs({ blockstore })
const seen = new Set()
const todo = roots.map(root => root)
while (todo.length > 0) {
  const cid = todo.pop()
  if (seen.has(cid.toString())) continue
  seen.add(cid.toString())
  try {
    const stat = await fs.stat(cid)
    if (stat.type === 'directory') {
      report.directories++
      for await (const entry of fs.ls(cid)) {
        const shape = entry.name.replace(/[0-9a-f]/g, '0')
        report.names[shape] = (report.names[shape] ?? 0) + 1
        todo.push(entry.cid)
      }
    } else {
      report.files++
      let size = 0
      for await (const chunk of fs.cat(cid)) size += chunk.length
      if (BigInt(size) !== BigInt(stat.size)) problem(`${cid}: says ${stat.size} bytes, has ${size}`)
      report.fileBytes += size
    }
  } catch (error) {
    problem(`${cid}: ${error.message}`)
  }
}
report.reached = reached.size
report.roots = roots.map(String)
console.log(JSON.stringify(report))
process.exit(report.problems.length === 0 && roots.length > 0 ? 0 : 1)
