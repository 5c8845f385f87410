//! Several machines on one: network namespaces on a bridge that stands for the internet, and NATs with real rules.
//!
//! ```text
//!   the test's own namespace: bridge "inet", 45.0.0.1/16
//!       |            |                |
//!   public host   public host   NAT 45.0.1.N ── masquerade, nothing new from outside ── host 10.0.0.2
//! ```
//!
//! A host is a process that sleeps in a namespace; it is in the registry, and the namespace ends with it. Root only.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::process::run_ok;
use super::{Context, Process, line, wait_until};

const LIMIT: Duration = Duration::from_secs(30);
/// Strangers' packets to the router itself are dropped, as routers do: one that answered them, or noted them as under way, would
/// take the port that a hole from inside needs.
const RULES: &str = "\
table ip nat {
  chain post {
    type nat hook postrouting priority 100;
    oifname \"eth0\" masquerade
  }
}
table ip guard {
  chain pass {
    type filter hook forward priority 0; policy drop;
    iifname \"eth1\" accept
    ct state established,related accept
  }
  chain mine {
    type filter hook input priority 0; policy drop;
    iifname { \"lo\", \"eth1\" } accept
    ct state established,related accept
  }
}
";

/// A machine.
#[derive(Debug)]
pub struct Host {
    holder: Process,
    pub ip: String,
}

/// A NAT and the machine behind it.
#[derive(Debug)]
pub struct Behind {
    pub nat: Host,
    pub host: Host,
}

/// The bridge, and how many hang on it.
#[derive(Debug)]
pub struct Internet {
    ctx: Context,
    hosts: u32,
    /// The namespace of the bridge, which would end when this process enters a host's.
    inet: std::fs::File,
}

fn sh(line: &str) -> Result<String> {
    Ok(run_ok(Command::new("sh").args(["-ec", line]), LIMIT).with_context(|| line.to_owned())?.stdout)
}

impl Internet {
    /// In the namespace of this process, which must be its own.
    pub fn new(ctx: &Context) -> Result<Internet> {
        sh(
            "ip link add name inet type bridge mcast_snooping 0; ip addr add 45.0.0.1/16 dev inet; ip link set inet up",
        )?;
        let inet = std::fs::File::open("/proc/self/ns/net")?;
        Ok(Internet { ctx: ctx.clone(), hosts: 0, inet })
    }

    fn namespace(&mut self) -> Result<Host> {
        self.hosts += 1;
        let log = self.ctx.dir.join(format!("host-{}.log", self.hosts));
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "infinity"]);
        let holder = Process::start(&mut command, &log, &self.ctx.registry)?;
        let ours = std::fs::read_link("/proc/self/ns/net")?;
        let theirs = format!("/proc/{}/ns/net", holder.pid());
        // Until the program has made its namespace it is in ours.
        wait_until("a namespace", LIMIT, || Ok(std::fs::read_link(&theirs).is_ok_and(|ns| ns != ours)))?;
        let host = Host { holder, ip: String::new() };
        host.sh("ip link set lo up")?;
        Ok(host)
    }

    /// A cable between the bridge and the host's eth0, with this address.
    fn attach(&mut self, host: &mut Host, ip: &str) -> Result<()> {
        let (name, pid) = (format!("host{}", self.hosts), host.holder.pid());
        sh(&format!(
            "ip link add name {name} type veth peer name {name}p; ip link set {name} master inet up; \
             ip link set {name}p netns {pid}"
        ))?;
        host.sh(&format!(
            "ip link set {name}p name eth0; ip addr add {ip}/16 dev eth0; ip link set eth0 up"
        ))?;
        host.ip = ip.to_owned();
        Ok(())
    }

    /// A machine that everybody reaches.
    pub fn public(&mut self) -> Result<Host> {
        let mut host = self.namespace()?;
        let ip = format!("45.0.0.{}", self.hosts + 1);
        self.attach(&mut host, &ip)?;
        Ok(host)
    }

    /// A machine that is far away: everything takes half of `round_trip` to it, and half back. It reaches those that
    /// [`Host::knows_the_far`] was called for.
    pub fn far(&mut self, round_trip: Duration) -> Result<Host> {
        let mut host = self.namespace()?;
        let (n, pid) = (self.hosts, host.holder.pid());
        let near = line::tun(self.inet.try_clone()?, &format!("line{n}"))?;
        let there = line::tun(std::fs::File::open(format!("/proc/{pid}/ns/net"))?, "eth0")?;
        sh(&format!(
            "ip addr add 46.0.{n}.1/24 dev line{n}; ip link set line{n} txqueuelen 10000 up; \
             echo 1 > /proc/sys/net/ipv4/ip_forward"
        ))?;
        host.sh(&format!(
            "ip addr add 46.0.{n}.2/24 dev eth0; ip link set eth0 txqueuelen 10000 up; \
             ip route add default via 46.0.{n}.1"
        ))?;
        line::join(near, there, round_trip / 2)?;
        host.ip = format!("46.0.{n}.2");
        Ok(host)
    }

    /// A machine behind a NAT that lets in only what was asked for.
    pub fn behind_nat(&mut self) -> Result<Behind> {
        let mut nat = self.namespace()?;
        let ip = format!("45.0.1.{}", self.hosts);
        self.attach(&mut nat, &ip)?;
        let host = self.namespace()?;
        let pids = (nat.holder.pid(), host.holder.pid());
        nat.sh(&format!(
            "ip link add name eth1 type veth peer name eth0p netns {}; ip addr add 10.0.0.1/24 dev eth1; \
             ip link set eth1 up; echo 1 > /proc/sys/net/ipv4/ip_forward",
            pids.1
        ))?;
        host.sh("ip link set eth0p name eth0; ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up; \
             ip route add default via 10.0.0.1")?;
        let rules = self.ctx.dir.join(format!("nat-{}.nft", pids.0));
        std::fs::write(&rules, RULES)?;
        nat.sh(&format!("nft -f {}", rules.display()))?;
        let host = Host { ip: "10.0.0.2".into(), ..host };
        Ok(Behind { nat, host })
    }
}

impl Host {
    /// A command that runs on this machine.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.pid())).arg(program);
        command
    }

    /// A shell line on this machine.
    pub fn sh(&self, line: &str) -> Result<String> {
        let mut command = self.command(Path::new("sh"));
        Ok(run_ok(command.args(["-ec", line]), LIMIT).with_context(|| line.to_owned())?.stdout)
    }

    /// Those that are [far away](Internet::far) are reached by way of the bridge.
    pub fn knows_the_far(&self) -> Result<()> {
        self.sh("ip route add 46.0.0.0/16 via 45.0.0.1").map(drop)
    }

    /// What leaves this machine has this rate at most, in bits a second.
    pub fn limit(&self, rate: u64) -> Result<()> {
        self.sh(&format!("tc qdisc replace dev eth0 root tbf rate {rate}bit burst 64kb latency 100ms"))
            .map(drop)
    }

    /// Bytes that left this machine.
    pub fn sent(&self) -> Result<u64> {
        let told = self.sh("cat /proc/net/dev")?;
        let line = told.lines().find_map(|line| line.trim().strip_prefix("eth0:")).context("no eth0")?;
        Ok(line.split_whitespace().nth(8).context("no count")?.parse()?)
    }

    /// From now on this thread, and what it starts, is on this machine.
    pub fn enter(&self) -> Result<()> {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.holder.pid()))?;
        // SAFETY: a plain system call on a descriptor that is open; it changes what this thread sees and nothing in its memory.
        let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
        ensure!(entered == 0, "setns: {}", std::io::Error::last_os_error());
        Ok(())
    }
}

impl Behind {
    /// The provider of line gives the NAT another address; what was under way is forgotten.
    pub fn change_address(&mut self, ip: &str) -> Result<()> {
        self.nat.sh(&format!(
            "ip addr del {}/16 dev eth0; ip addr add {ip}/16 dev eth0; nft flush ruleset",
            self.nat.ip
        ))?;
        // Without rules nothing passes in the old guise; with them again everything begins anew.
        self.nat.sh(&format!("printf '%s' '{RULES}' | nft -f -"))?;
        self.nat.ip = ip.to_owned();
        Ok(())
    }
}
