//! Writes a small drive into one piece, for walking it with another implementation of UnixFS:
//! `cargo run --release -p holdfast-content --example sample_piece -- OUT.car` prints the commit's root CID and how many
//! blocks and files' bytes are below it.

#![allow(clippy::unwrap_used)]

use holdfast_content::block::Link;
use holdfast_content::car::PieceWriter;
use holdfast_content::chunk;
use holdfast_content::commit::{Commit, DriveStats};
use holdfast_content::keys::{Mnemonic, TreeDomain};
use holdfast_content::tree::{Edit, MemorySource, Namespace, Tree};
use holdfast_content::unixfs::FileBuilder;

fn main() {
    let path = std::env::args().nth(1).unwrap_or_else(|| "sample.car".to_owned());
    let keys = Mnemonic::from_entropy([1; 32]).root_key().generation(1).keys();
    let file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut piece = PieceWriter::new(file, [7; 16]).unwrap();
    let mut edits = Vec::new();
    let mut ciphertext_bytes = 0;
    for inode in 1..=3000u64 {
        // The thousandth has two levels of inner nodes.
        let leaves = if inode == 1000 { 40_000 } else { inode % 5 };
        let mut chunks = Vec::new();
        for n in 0..leaves {
            let sealed =
                chunk::seal(&keys.convergence, format!("inode {inode} chunk {n}").as_bytes()).unwrap();
            piece.write(&sealed.block).unwrap();
            chunks.push(sealed.block);
        }
        let mut builder = FileBuilder::new(&mut piece);
        chunks.iter().for_each(|block| builder.push(*block.cid(), block.len()).unwrap());
        let dag = builder.finish().unwrap();
        ciphertext_bytes += dag.map_or(0, |dag| dag.filesize);
        let links: Vec<Link> = dag.into_iter().map(|dag| dag.root).collect();
        edits.push(Edit::put(inode.to_be_bytes().to_vec(), vec![inode as u8; 60], links));
    }
    let tree = Tree::<Namespace>::new(keys.tree(TreeDomain::Namespace), 64);
    let namespace = tree.apply(&MemorySource::new(), None, edits, &mut piece).unwrap().root;
    let stats = DriveStats { inodes: 3000, bytes: 0, blocks_bytes: 0 };
    let commit = Commit {
        sequence: 1,
        namespace,
        previous: None,
        device: [0; 16],
        term: 1,
        lsn: 1,
        time_ms: 0,
        pending_files: 0,
        pending: Vec::new(),
        stats,
    };
    let encoded = commit.encode(&keys).unwrap();
    piece.write(&encoded.body).unwrap();
    piece.write(&encoded.directory).unwrap();
    println!("{} {} blocks, {ciphertext_bytes} bytes in files", encoded.directory.cid(), piece.blocks());
    piece.finish().unwrap();
}
