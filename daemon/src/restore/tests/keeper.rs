//! Providers in this process, that keep records.

use std::sync::Arc;

use holdfast_net::client::PutOutcome;
use holdfast_net::node::{DhtRole, Discovery};
use holdfast_net::record::{RecordRules, RecordVerdict};
use holdfast_net::settlement::NoSettlement;
use holdfast_net::{Provider, ProviderConfig, Session, SigningKey};

use super::*;
use crate::records::DriveRecords;

/// Keeps whatever it is given.
struct Gullible;

impl RecordRules for Gullible {
    fn judge(&self, _: &RecordKey, _: &[u8], _: Option<&[u8]>) -> RecordVerdict {
        RecordVerdict::Higher
    }
}

pub(crate) struct Keeper {
    dir: tempfile::TempDir,
    pub(crate) node: Node,
    provider: Provider,
}

impl Keeper {
    pub(crate) async fn start(honest: bool, bootstrap: &[&Keeper]) -> Keeper {
        Keeper::start_in(tempfile::tempdir().unwrap(), honest, bootstrap).await
    }

    /// Another provider under the same identity, which knows nothing of what this one said: together they are one that lies.
    pub(crate) async fn other_face(&self) -> Keeper {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(self.dir.path().join("identity"), dir.path().join("identity")).unwrap();
        Keeper::start_in(dir, true, &[]).await
    }

    async fn start_in(dir: tempfile::TempDir, honest: bool, bootstrap: &[&Keeper]) -> Keeper {
        let env = Env::system();
        let key = identity::load_or_create(&dir.path().join("identity"), &env).unwrap();
        let bootstrap =
            bootstrap.iter().flat_map(|k| whereabouts(&[k.address()]).collect::<Vec<_>>()).collect();
        let discovery = Discovery { dht: DhtRole::Server, bootstrap, ..Discovery::default() };
        let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        let node = Node::start(NodeConfig::listening(key, listen).with_discovery(discovery)).await.unwrap();
        let mut config = ProviderConfig::with_capacity(1 << 30);
        config.disk_reserve_bytes = 0;
        let rules: Arc<dyn RecordRules> = if honest { Arc::new(DriveRecords) } else { Arc::new(Gullible) };
        let provider = Provider::open(dir.path(), config, node.clone(), env, rules, Arc::new(NoSettlement));
        let provider = provider.await.unwrap();
        let serving = provider.clone();
        tokio::spawn(async move { serving.run().await });
        Keeper { dir, node, provider }
    }

    pub(crate) fn address(&self) -> ProviderAddr {
        ProviderAddr::new(self.node.peer_id(), &self.node.listeners())
    }

    pub(crate) async fn keep(&self, key: &RecordKey, value: &[u8]) {
        assert_eq!(self.session().await.put_record(key, value).await.unwrap(), PutOutcome::Stored);
    }

    /// Somebody with a key of his own.
    pub(crate) async fn session(&self) -> Session {
        let client = searcher(&Env::system(), Finder::new(Env::system(), Vec::new(), false)).await.unwrap();
        let (peer, addrs) = self.address().parts().unwrap();
        let session = client.connect(peer, addrs).await.unwrap();
        session.authenticate(SigningKey::from_bytes(&[3; 32])).await.unwrap();
        session
    }

    pub(crate) async fn stop(self) {
        self.provider.stop();
        self.node.shutdown().await;
    }
}
