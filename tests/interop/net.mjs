// Helia as a peer: fetches by Bitswap or from a gateway, and serves a folder by Bitswap.
//
//   node net.mjs fetch CID DIR ADDRESS..     fetches from peers (multiaddresses) by Bitswap and compares with a folder
//   node net.mjs gateway CID DIR URL         fetches raw blocks from a trustless gateway (http://HOST:PORT) and compares
//                                            both: { root, files, bytes, problems }, exit code 1 where anything differs
//   node net.mjs serve DIR PROFILE           adds a folder and serves it; { root, address } at once; ends with its standard input
//
// Owns: the check that Holdfast's providers and `holdfast get` speak with an independent implementation.

import { createReadStream } from 'node:fs'
import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { withBitswap } from '@helia/bitswap'
import { withHTTP } from '@helia/http'
import { withLibp2pLight } from '@helia/libp2p'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createHeliaLight } from 'helia'
import { exporter } from 'ipfs-unixfs-exporter'
import { importer } from 'ipfs-unixfs-importer'
import { CID } from 'multiformats/cid'

const WAIT = 60_000

function libp2p (listen) {
  return {
    addresses: { listen },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    services: { identify: identify() }
  }
}

async function * files (dir, prefix) {
  for (const entry of await readdir(dir, { withFileTypes: true })) {
    if (entry.name.startsWith('.')) continue
    const path = `${prefix}/${entry.name}`
    if (entry.isDirectory()) yield * files(join(dir, entry.name), path)
    else if (entry.isFile()) yield { path, content: createReadStream(join(dir, entry.name)) }
  }
}

/** Reads a whole tree out of a block store, and compares it with a folder. */
async function compare (root, store, dir) {
  const report = { root: root.toString(), files: 0, bytes: 0, problems: [] }
  const options = { signal: AbortSignal.timeout(WAIT) }
  const todo = [[root, dir]]
  while (todo.length > 0) {
    const [cid, path] = todo.pop()
    const entry = await exporter(cid, store, options)
    if (entry.type === 'directory') {
      const names = []
      for await (const child of entry.entries(options)) names.push(child)
      const expected = (await readdir(path)).filter(name => !name.startsWith('.')).sort()
      if (JSON.stringify(names.map(child => child.name).sort()) !== JSON.stringify(expected)) {
        report.problems.push(`${path}: other names`)
      }
      for (const child of names) todo.push([child.cid, join(path, child.name)])
      continue
    }
    const parts = []
    for await (const part of entry.content(options)) parts.push(part)
    const bytes = Buffer.concat(parts)
    if (!bytes.equals(await readFile(path))) report.problems.push(`${path}: other bytes`)
    report.files++
    report.bytes += bytes.length
  }
  return report
}

async function fetched (helia, cid, dir) {
  try {
    return await compare(CID.parse(cid), helia.blockstore, dir)
  } catch (error) {
    return { root: cid, problems: [`${error.stack ?? error}`] }
  }
}

async function fetch (cid, dir, ...addresses) {
  const helia = await withBitswap(withLibp2pLight(createHeliaLight(), libp2p([]))).start()
  for (const address of addresses) await helia.libp2p.dial(multiaddr(address))
  return await fetched(helia, cid, dir)
}

async function gateway (cid, dir, url) {
  const { hostname, port } = new URL(url)
  const http = { allowInsecure: true, allowLocal: true, recursiveGateways: [], delegatedRouters: [] }
  const helia = withHTTP(createHeliaLight(), http)
  // Who has it is said here: there is no routing between the two.
  const provider = {
    id: CID.parse('bafkqaaa'),
    multiaddrs: [multiaddr(`/ip4/${hostname}/tcp/${port}/http`)],
    protocols: ['transport-ipfs-gateway-http'],
    router: 'given'
  }
  helia.addRouter({ name: 'given', findProviders: async function * () { yield provider } })
  return await fetched(await helia.start(), cid, dir)
}

async function serve (dir, profile) {
  const helia = await withBitswap(withLibp2pLight(createHeliaLight(), libp2p(['/ip4/127.0.0.1/tcp/0']))).start()
  let root
  for await (const entry of importer(files(dir, 'd'), helia.blockstore, { profile, wrapWithDirectory: false })) {
    root = entry.cid
  }
  const [address] = helia.libp2p.getMultiaddrs()
  console.log(JSON.stringify({ root: root.toString(), address: address.toString() }))
  process.stdin.resume()
  await new Promise(resolve => process.stdin.once('end', resolve))
  process.exit(0)
}

const [command, ...rest] = process.argv.slice(2)
const report = await { fetch, gateway, serve }[command](...rest)
console.log(JSON.stringify(report))
process.exit(report.problems.length > 0 ? 1 : 0)
