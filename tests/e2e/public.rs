//! What is published is for everybody: other programs fetch it by Bitswap and HTTP, `holdfast get` from anywhere, and it outlives
//! the machine and a provider.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::compare::Tree;
use holdfast_tests::harness::{Context, Drive, InitOptions, Network, RestoreFrom, run, run_ok, wait_until};
use serde_json::{Value, json};

use crate::{inputs, ipfs, remove_tree};

const FETCH: Duration = Duration::from_secs(120);
const SYNC: Duration = Duration::from_secs(300);
const REPAIR: Duration = Duration::from_secs(240);
const PROVIDERS: usize = 4;

fn often() -> Value {
    json!({"limits": {"audit_interval_seconds": 3, "seal_after_idle_seconds": 2, "provider_silent_seconds_max": 20}})
}

/// A network whose providers all give public blocks by HTTP as well; and where.
fn network_with_gateways(ctx: &Context) -> Result<(Network, Vec<String>)> {
    let network = Network::start(ctx, PROVIDERS)?;
    let mut gateways = Vec::new();
    for number in 1..=PROVIDERS {
        network.stop(number)?;
        let path = network.folder(number).join("config");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        config["gateway"] = json!("127.0.0.1:0");
        std::fs::write(&path, serde_json::to_vec(&config)?)?;
        network.start_one(number)?;
        // The port that was drawn is remembered.
        let config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        gateways.push(format!("http://{}", config["gateway"].as_str().context("no gateway")?));
    }
    Ok((network, gateways))
}

/// A command of the drive with `--json` that must succeed.
fn told(drive: &Drive, words: &[&str]) -> Result<Value> {
    let mut all = words.to_vec();
    all.push("--json");
    let done = drive.command_with(&all)?;
    ensure!(done.status.success(), "{words:?}: {}{}\n{}", done.stdout, done.stderr, drive.daemon_log());
    Ok(serde_json::from_str(&done.stdout)?)
}

fn text<'a>(report: &'a Value, key: &str) -> Result<&'a str> {
    report[key].as_str().with_context(|| format!("no {key} in {report}"))
}

/// Names and bytes.
fn same(source: &Path, copy: &Path) -> Result<()> {
    let contents = |root: &Path| -> Result<Vec<_>> {
        let tree = Tree::read(root)?;
        Ok(tree.entries.into_iter().map(|(path, entry)| (path, entry.content)).collect())
    };
    ensure!(contents(source)? == contents(copy)?, "{} and {} differ", source.display(), copy.display());
    Ok(())
}

/// `holdfast get` on a machine without a drive.
fn get(ctx: &Context, words: &[&str], out: &Path) -> Result<Value> {
    let mut command = Command::new(ctx.bin("holdfast")?);
    command
        .env("HOLDFAST_HOME", ctx.dir.join("no-home"))
        .args(["get", "--json", "--out"])
        .arg(out)
        .args(words);
    Ok(serde_json::from_str(&run_ok(&mut command, FETCH)?.stdout)?)
}

/// Helia fetches and compares.
fn helia(words: &[&str], root: &str, dir: &Path, rest: &[String]) -> Result<Value> {
    let (node, script) = ipfs::script("net.mjs");
    let mut command = Command::new(node);
    let done = run(command.arg(script).args(words).arg(root).arg(dir).args(rest), FETCH)?;
    let report: Value = serde_json::from_str(done.stdout.trim())
        .with_context(|| format!("{}{}", done.stdout, done.stderr))?;
    ensure!(done.status.success(), "{report:#}");
    Ok(report)
}

/// How many copies count of what is published under this root.
fn copies(drive: &Drive, root: &str) -> Result<u64> {
    let all = told(drive, &["published"])?;
    let list = all["publications"].as_array().context("no list")?;
    let found =
        list.iter().find(|it| it["root"] == root).with_context(|| format!("{root} is not listed: {all}"))?;
    found["copies"].as_u64().context("no copies")
}

fn http_status(url: &str, method: &str) -> Result<String> {
    use std::io::{Read, Write};
    let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).context("a URL")?;
    let mut stream = std::net::TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    Ok(text.split(' ').nth(1).unwrap_or_default().to_owned())
}

pub fn for_everybody(ctx: &Context) -> Result<()> {
    let (network, gateways) = network_with_gateways(ctx)?;
    let options = InitOptions { providers: network.addresses.clone(), config: often(), ..Default::default() };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    let site = drive.mountpoint.join("Site");
    inputs::random_files(&site.join("pictures"), 30, 700_000, 11)?;
    std::fs::write(site.join("index.html"), b"<h1>hello</h1>")?;
    inputs::random_files(&drive.mountpoint.join("private"), 10, 300_000, 12)?;
    // A copy to compare with when the drive is away.
    let copy = ctx.folder("copy")?;
    run_ok(Command::new("cp").arg("-a").arg(&site).arg(&copy), FETCH)?;
    let copy = copy.join("Site");

    let site_path = site.display().to_string();
    let report = told(&drive, &["publish", "--wait", "--timeout", "50", &site_path])?;
    let (root, link) = (text(&report, "root")?.to_owned(), text(&report, "link")?.to_owned());
    ctx.note(format!("published as {root}, with {} providers", report["copies"]));
    let theirs =
        ipfs::public_mjs(&["add"], &[&copy, Path::new("unixfs-v0-2015"), &ctx.dir.join("theirs.car")])?;
    ensure!(theirs["root"] == root.as_str(), "Helia calls it {}", theirs["root"]);

    // Anybody: Helia by Bitswap and by HTTP, our own program by the link, and from one gateway alone.
    let fetched = helia(&["fetch"], &root, &copy, &network.addresses)?;
    ctx.note(format!("Helia fetched {} bytes by Bitswap", fetched["bytes"]));
    let block = |gateway: &String| format!("{gateway}/ipfs/{root}?format=raw");
    let serving: Vec<&String> =
        gateways.iter().filter(|g| http_status(&block(g), "HEAD").is_ok_and(|s| s == "200")).collect();
    ensure!(serving.len() >= 3, "{} gateways have it", serving.len());
    let gateway = serving.first().context("no gateway")?.to_string();
    helia(&["gateway"], &root, &copy, std::slice::from_ref(&gateway))?;
    let by_link = get(ctx, &[&link], &ctx.dir.join("by-link"))?;
    same(&copy, &ctx.dir.join("by-link"))?;
    let used = by_link["sources"]
        .as_array()
        .context("sources")?
        .iter()
        .filter(|s| s["blocks"].as_u64() > Some(0))
        .count();
    ensure!(used > 1, "only one of several providers was used: {by_link:#}");
    get(ctx, &[&root, "--gateway", &gateway], &ctx.dir.join("by-gateway"))?;
    same(&copy, &ctx.dir.join("by-gateway"))?;
    let one = get(ctx, &[&format!("ipfs://{root}/index.html"), "--gateway", &gateway], &ctx.dir.join("one"))?;
    ensure!(one["bytes"] == 14 && std::fs::read(ctx.dir.join("one"))? == b"<h1>hello</h1>", "{one}");

    // What comes from elsewhere: Helia serves, we fetch.
    let mut served = Serving::start(ctx, &copy)?;
    get(ctx, &[&served.root, "--peer", &served.address], &ctx.dir.join("from-helia"))?;
    ensure!(served.root == root, "the same folder");
    same(&copy, &ctx.dir.join("from-helia"))?;
    served.end();

    // Once enough providers have it, nothing of it is kept here beside the drive.
    wait_until("local files of what is public to go", Duration::from_secs(60), || {
        Ok(std::fs::read_dir(drive.home.join("public"))?.count() == 0)
    })?;

    // What is unpublished is dropped by the providers. Not a file of the first publication, which would go on serving it.
    let other = drive.mountpoint.join("other.html");
    std::fs::write(&other, b"<h1>for a while</h1>")?;
    let other = other.display().to_string();
    let second = told(&drive, &["publish", "--wait", "--timeout", "50", &other])?;
    let second = text(&second, "root")?.to_owned();
    let gone = |status: &str| {
        gateways
            .iter()
            .all(|g| http_status(&format!("{g}/ipfs/{second}?format=raw"), "GET").is_ok_and(|s| s == status))
    };
    ensure!(!gone("404"), "it was never there");
    told(&drive, &["unpublish", &second])?;
    wait_until("providers to drop what is unpublished", Duration::from_secs(120), || Ok(gone("404")))
        .with_context(|| drive.status_text())?;
    ensure!(http_status(&block(&gateway), "GET")? == "200", "the other one is still there");

    // A provider is lost: another one takes over, without anybody's help.
    drive.sync_wait(SYNC)?;
    let lost = (1..=PROVIDERS).find(|n| serving.contains(&&gateways[n - 1])).context("nobody serves")?;
    network.kill(lost)?;
    wait_until("copies to be made anew", REPAIR, || {
        let left = gateways.iter().enumerate().filter(|(n, _)| n + 1 != lost);
        let have = left.filter(|(_, g)| http_status(&block(g), "HEAD").is_ok_and(|s| s == "200")).count();
        Ok(have == 3 && copies(&drive, &root)? == 3)
    })
    .with_context(|| format!("{}\n{}", drive.status_text(), drive.daemon_log()))?;

    // The words alone bring back what is published, as well.
    drive.unmount()?;
    remove_tree(&drive.home)?;
    let peers: Vec<String> =
        network.addresses.iter().enumerate().filter(|(n, _)| n + 1 != lost).map(|(_, a)| a.clone()).collect();
    let from = RestoreFrom { secrets: &drive.secrets, peers: &peers, config: often() };
    let (restored, _) = Drive::restore(ctx, "restored", &from)?;
    let listed = told(&restored, &["published"])?;
    let listed = listed["publications"].as_array().context("no list")?;
    ensure!(listed.len() == 1 && listed[0]["root"] == root.as_str(), "{listed:?}");
    wait_until("what is published to count again", REPAIR, || Ok(copies(&restored, &root)? == 3))
        .with_context(|| restored.status_text())?;
    get(ctx, &[text(&listed[0], "link")?], &ctx.dir.join("after-restore"))?;
    same(&copy, &ctx.dir.join("after-restore"))?;
    restored.unmount()?;
    Ok(())
}

/// Helia, serving a folder.
struct Serving {
    child: std::process::Child,
    root: String,
    address: String,
}

impl Serving {
    fn start(ctx: &Context, dir: &Path) -> Result<Serving> {
        let (node, script) = ipfs::script("net.mjs");
        let log = ctx.dir.join("helia.out");
        let child = Command::new(node)
            .arg(script)
            .arg("serve")
            .arg(dir)
            .arg("unixfs-v0-2015")
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(&log)?)
            .stderr(std::fs::File::create(ctx.dir.join("helia.err"))?)
            .spawn()?;
        ctx.registry.pid(child.id())?;
        let mut serving = Serving { child, root: String::new(), address: String::new() };
        wait_until("Helia to listen", Duration::from_secs(60), || {
            let Ok(told) = serde_json::from_slice::<Value>(&std::fs::read(&log)?) else { return Ok(false) };
            serving.root = text(&told, "root")?.to_owned();
            serving.address = text(&told, "address")?.to_owned();
            Ok(true)
        })?;
        Ok(serving)
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.end();
    }
}
