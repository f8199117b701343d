//! The command line. Flags go before the settings file.

use std::{fs, net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use mizuya_wire::{
    quorum::MemberQuorum,
    settings::{Environment, Eviction, Mode, Settings, parse_bytes, parse_duration},
};

use super::log::Format;

/// A cache node that any Redis client can use.
#[derive(Debug, Parser)]
#[command(name = "mizuya-node", version, about, max_term_width = 100, args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:\n  \
    mizuya-node --mode single\n  \
    mizuya-node init-secrets secrets --name cache-1 --name cache-2 --name cache-3\n  \
    mizuya-node --config cache-1.yaml --security-dir secrets\n\n\
    Ports: clients 3320/tcp, peers 3322/tcp, gossip 3322/udp (always the client port + 2), http 8080/tcp.")]
pub struct Arguments {
    /// What to do other than run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run.
    #[command(flatten)]
    pub run: Run,
}

/// What to do other than run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the certificates and the gossip key of one cluster; every member gets the same folder
    InitSecrets {
        /// Folder for ca.crt, ca.key, tls.crt, tls.key and gossip.key; an authority that is there is kept
        dir: PathBuf,
        /// Name or address of a member for the certificate, as in `name` and `peers`; can be repeated
        #[arg(long = "name", value_name = "NAME")]
        names: Vec<String>,
    },
    /// Read a settings file, say what is wrong with it, and end
    CheckConfig {
        /// The file
        file: PathBuf,
    },
}

/// How to run.
#[derive(Debug, Default, Args)]
pub struct Run {
    /// Settings file (YAML)
    #[arg(long, value_name = "FILE", env = "MIZUYA_CONFIG")]
    pub config: Option<PathBuf>,
    /// This member's stable DNS name, under which the others dial it
    #[arg(long, env = "MIZUYA_NAME")]
    pub name: Option<String>,
    /// Zone of this member, for placing copies apart
    #[arg(long, env = "MIZUYA_ZONE", default_value = "")]
    pub zone: String,
    /// File that names the zone where --zone does not; the start waits up to 30 s until it says something, `-` for none
    #[arg(long, value_name = "FILE", env = "MIZUYA_ZONE_FILE")]
    pub zone_file: Option<PathBuf>,
    /// single, ha or disabled
    #[arg(long, value_parser = mode)]
    pub mode: Option<Mode>,
    /// Name of the cluster
    #[arg(long)]
    pub cluster_name: Option<String>,
    /// Address for clients; peers and gossip use its port + 2
    #[arg(long, value_name = "ADDR:PORT")]
    pub bind_addr: Option<SocketAddr>,
    /// Address for health, metrics and statistics
    #[arg(long, value_name = "ADDR:PORT")]
    pub http_addr: Option<SocketAddr>,
    /// Another member with its gossip port; can be repeated, and replaces the file's list
    #[arg(long = "peer", value_name = "HOST:PORT")]
    pub peers: Vec<String>,
    /// local, lan or wan
    #[arg(long, value_parser = environment)]
    pub environment: Option<Environment>,
    /// Name of the map that Redis commands use
    #[arg(long, value_name = "MAP")]
    pub dmap_name: Option<String>,
    /// Copies of each key
    #[arg(long, value_name = "N")]
    pub replica_count: Option<u32>,
    /// Copies that confirm a read
    #[arg(long, value_name = "N")]
    pub read_quorum: Option<u32>,
    /// Copies that hold a write before it is acknowledged
    #[arg(long, value_name = "N")]
    pub write_quorum: Option<u32>,
    /// Members that must be reachable: a number, or auto
    #[arg(long, value_name = "N", value_parser = member_quorum)]
    pub member_count_quorum: Option<MemberQuorum>,
    /// How long SIGTERM may spend on handing over, such as 5s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub leave_timeout: Option<Duration>,
    /// How long the first peer waits for others before it starts a cluster alone
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub bootstrap_timeout: Option<Duration>,
    /// How long hot keys of other members may be mirrored, up to 100ms; answers may then be that old
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub hot_key_mirror: Option<Duration>,
    /// Partitions of a new cluster
    #[arg(long, value_name = "N")]
    pub partitions: Option<u16>,
    /// Most bytes that entries may take, such as 256Mi
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub max_memory: Option<u64>,
    /// Which entries go when that is full: auto, lru or lfu
    #[arg(long, value_name = "HOW", value_parser = eviction)]
    pub eviction: Option<Eviction>,
    /// Folder on a volume that outlives the process: tables and snapshots are kept there
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Folder made by init-secrets
    #[arg(long, value_name = "DIR")]
    pub security_dir: Option<String>,
    /// Run without certificates: anyone who reaches the peer port is then a member
    #[arg(long)]
    pub insecure: bool,
    /// Threads that serve connections, of clients and of other members [default: one for each core that the process may
    /// use, at most one for each 256Mi of max-memory; none of their own on one core]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// What is logged, such as debug or `mizuya_node=debug`
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// How it is logged
    #[arg(long, value_enum, default_value_t)]
    pub log_format: Format,
}

/// Settings, and sentences for the log.
#[derive(Debug)]
pub struct Effective {
    /// The file with the flags on top.
    pub settings: Settings,
    /// What is strange about them.
    pub warnings: Vec<String>,
}

/// Reads a settings file.
pub fn read(file: &PathBuf) -> anyhow::Result<Effective> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let loaded = Settings::load(&text).with_context(|| format!("{}", file.display()))?;
    Ok(Effective { settings: loaded.settings, warnings: loaded.warnings })
}

impl Run {
    /// The settings that hold: the file's, and what the flags say instead.
    pub fn settings(&self) -> anyhow::Result<Effective> {
        let mut effective = match &self.config {
            Some(file) => read(file)?,
            None => Effective { settings: Settings::default(), warnings: Vec::new() },
        };
        // What was strange about values of the file may no longer be.
        let before = effective.settings.check()?;
        effective.warnings.retain(|warning| !before.contains(warning));
        self.override_in(&mut effective.settings);
        effective.warnings.extend(effective.settings.check()?);
        Ok(effective)
    }

    fn override_in(&self, settings: &mut Settings) {
        fn set<T: Clone>(target: &mut T, flag: Option<&T>) {
            if let Some(value) = flag {
                target.clone_from(value);
            }
        }
        set(&mut settings.mode, self.mode.as_ref());
        set(&mut settings.cluster_name, self.cluster_name.as_ref());
        set(&mut settings.bind_addr, self.bind_addr.as_ref());
        set(&mut settings.http_addr, self.http_addr.as_ref());
        set(&mut settings.environment, self.environment.as_ref());
        set(&mut settings.dmap_name, self.dmap_name.as_ref());
        set(&mut settings.replica_count, self.replica_count.as_ref());
        set(&mut settings.read_quorum, self.read_quorum.as_ref());
        set(&mut settings.write_quorum, self.write_quorum.as_ref());
        set(&mut settings.member_count_quorum, self.member_count_quorum.as_ref());
        set(&mut settings.leave_timeout, self.leave_timeout.as_ref());
        set(&mut settings.bootstrap_timeout, self.bootstrap_timeout.as_ref());
        set(&mut settings.hot_key_mirror, self.hot_key_mirror.as_ref());
        set(&mut settings.partitions, self.partitions.as_ref());
        set(&mut settings.eviction, self.eviction.as_ref());
        set(&mut settings.log, self.log.as_ref());
        if !self.peers.is_empty() {
            settings.peers.clone_from(&self.peers);
        }
        if self.name.is_some() {
            settings.name.clone_from(&self.name);
        }
        if self.max_memory.is_some() {
            settings.max_memory = self.max_memory;
        }
        if self.data_dir.is_some() {
            settings.data_dir.clone_from(&self.data_dir);
        }
        if self.security_dir.is_some() {
            settings.security.dir.clone_from(&self.security_dir);
        }
        settings.security.insecure |= self.insecure;
    }
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "single" => Ok(Mode::Single),
        "ha" => Ok(Mode::Ha),
        "disabled" => Ok(Mode::Disabled),
        _ => Err("write single, ha or disabled".to_owned()),
    }
}

fn environment(text: &str) -> Result<Environment, String> {
    match text {
        "local" => Ok(Environment::Local),
        "lan" => Ok(Environment::Lan),
        "wan" => Ok(Environment::Wan),
        _ => Err("write local, lan or wan".to_owned()),
    }
}

fn eviction(text: &str) -> Result<Eviction, String> {
    match text {
        "auto" => Ok(Eviction::Auto),
        "lru" => Ok(Eviction::Lru),
        "lfu" => Ok(Eviction::Lfu),
        _ => Err("write auto, lru or lfu".to_owned()),
    }
}

fn member_quorum(text: &str) -> Result<MemberQuorum, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(MemberQuorum::Auto),
        (_, Ok(number)) if number >= 1 => Ok(MemberQuorum::Fixed(number)),
        _ => Err("write a number from 1, or auto".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write a time such as 5s, 500ms or 2m".to_owned())
}

fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).ok_or_else(|| "write a size such as 1000, 64Mi or 2Gi".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_go_before_the_file_and_take_its_warnings_away() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.yaml");
        fs::write(&file, "peers: ['b:3322']\nreplica_count: 2\nmember_count_quorum: 2\nmax_memory: 1Gi\n").unwrap();
        let parse = |flags: &[&str]| {
            let all = ["mizuya-node", "--config", file.to_str().unwrap()];
            Arguments::try_parse_from(all.iter().chain(flags)).unwrap().run.settings().unwrap()
        };
        assert!(parse(&[]).warnings[0].contains("survive no failure"));
        let effective = parse(&[
            "--name",
            "a",
            "--peer",
            "b:3322",
            "--peer",
            "c:3322",
            "--max-memory",
            "64Mi",
            "--eviction",
            "lru",
            "--insecure",
        ]);
        assert_eq!(effective.warnings, Vec::<String>::new());
        assert_eq!(effective.settings.peers, ["b:3322", "c:3322"]);
        assert_eq!(effective.settings.name.as_deref(), Some("a"));
        assert_eq!((effective.settings.max_memory, effective.settings.eviction), (Some(64 << 20), Eviction::Lru));
        assert!(effective.settings.security.insecure);
        assert_eq!(effective.settings.replica_count, 2);
    }

    #[test]
    fn a_wrong_value_names_the_right_ones() {
        for (flags, expected) in [
            (["--mode", "cluster"], "single, ha or disabled"),
            (["--environment", "moon"], "local, lan or wan"),
            (["--leave-timeout", "soon"], "5s"),
            (["--member-count-quorum", "0"], "auto"),
            (["--eviction", "fifo"], "auto, lru or lfu"),
        ] {
            let error = Arguments::try_parse_from(["mizuya-node"].iter().chain(&flags)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
