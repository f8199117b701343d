//! The port of applications, over real sockets: what Redis answered, long pipelines, torn and hostile bytes, slow
//! readers, whole clusters, and the programs of Redis itself where they are installed.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "client_port/client.rs"]
mod client;

use std::{collections::BTreeSet, thread, time::Duration};

use bytes::{Bytes, BytesMut};
use client::{Client, Port, frame, resp2};
use mizuya_node::{
    io::{
        client_port::{MAX_IN_FLIGHT, MAX_UNWRITTEN},
        runtime::Runtime,
    },
    logic::{
        keyspace::Partition,
        node::Ticket,
        resp::{Protocol, Reply, inline},
    },
};
use mizuya_wire::settings::{Eviction, Mode, Settings};
use support::{LIMIT, Place};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

const PIPELINE: usize = 100_000;

/// Sends every request of a recording, and compares with what Redis answered.
async fn replay(recording: &str, protocol: Protocol) {
    let port = Port::single().await;
    let mut client = port.client().await;
    if protocol == Protocol::Resp3 {
        client.ask("HELLO 3").await;
    }
    let (mut request, mut expected, mut compared) = (String::new(), String::new(), 0);
    let mut different = Vec::new();
    for line in recording.lines().chain(["> PING"]) {
        match line.get(..2) {
            Some("2 ") => line[2..].clone_into(&mut expected),
            Some("3 ") if protocol == Protocol::Resp3 => line[2..].clone_into(&mut expected),
            Some("> ") => {
                if !request.is_empty() {
                    let words = inline::split(request.as_bytes()).unwrap();
                    let reply = client.ask_words(&words).await.escape_ascii().to_string();
                    if reply != escaped(&expected) {
                        different.push(format!("{request}: {reply} instead of {expected}"));
                    }
                    compared += 1;
                }
                line[2..].clone_into(&mut request);
            }
            _ => {}
        }
    }
    assert!(different.is_empty() && compared > 50, "{compared} compared; {}", different.join("\n"));
}

/// The recording's way of writing bytes, as the standard library does it.
fn escaped(text: &str) -> String {
    text.replace('\'', "\\'").replace('"', "\\\"")
}

#[tokio::test]
async fn replies_are_those_of_redis_in_both_versions() {
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        replay(include_str!("../src/logic/commands/redis_7.txt"), protocol).await;
        replay(include_str!("client_port/redis_7.txt"), protocol).await;
    }
}

#[tokio::test]
async fn the_greeting_and_what_is_said_of_a_connection() {
    let port = Port::single().await;
    let mut client = port.client().await;
    let id = String::from_utf8(client.ask("CLIENT ID").await).unwrap().trim()[1..].to_owned();
    let greeting = |version| {
        format!(
            "$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:{version}\r\n$2\r\nid\r\n:{id}\r\n\
             $4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"
        )
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert_eq!(text(client.ask("HELLO").await), format!("*14\r\n{}", greeting(2)));
    assert_eq!(text(client.ask("HELLO 3 AUTH default x SETNAME me").await), format!("%7\r\n{}", greeting(3)));
    assert_eq!(client.ask("CLIENT GETNAME").await, b"$2\r\nme\r\n");
    assert_eq!(client.ask("CLIENT SETINFO LIB-NAME redis-py").await, b"+OK\r\n");
    assert_eq!(client.ask("client setinfo lib-ver 5.0").await, b"+OK\r\n");
    assert_eq!(client.ask("CLIENT SETINFO FOO bar").await, b"-ERR Unrecognized option 'FOO'\r\n");
    assert!(client.ask("CLIENT SETINFO LIB-NAME \"a b\"").await.starts_with(b"-ERR lib-name cannot contain spaces"));
    let line = text(client.ask("CLIENT INFO").await);
    assert!(line.starts_with('=') && line.contains(&format!("txt:id={id} addr=127.0.0.1:")), "{line}");
    assert!(line.contains(" name=me ") && line.contains(" resp=3 lib-name=redis-py lib-ver=5.0\n"), "{line}");
    let mut other = port.client().await;
    let list = text(other.ask("CLIENT LIST").await);
    assert_eq!(list.matches("id=").count(), 2, "{list}");
    assert_eq!(text(other.ask(&format!("CLIENT LIST ID {id} 999")).await).matches("id=").count(), 1);
    assert_eq!(client.ask("RESET").await, b"+RESET\r\n");
    assert_eq!(client.ask("CLIENT GETNAME").await, b"$-1\r\n");
    drop(other);
    client.until("CLIENT LIST", |list| list.matches("id=").count() == 1).await;
}

#[tokio::test]
async fn a_full_cache_evicts_as_it_was_told_and_says_how_in_redis_words() {
    for (eviction, named, outlives) in [
        (Eviction::Auto, "allkeys-lru", true),
        (Eviction::Lru, "allkeys-lru", false),
        (Eviction::Lfu, "allkeys-lfu", true),
    ] {
        let settings =
            Settings { mode: Mode::Single, max_memory: Some(64 << 10), eviction, partitions: 1, ..Settings::default() };
        let port = Port::with(settings).await;
        let mut client = port.client().await;
        let reply = client.ask("CONFIG GET maxmemory-policy").await;
        assert_eq!(String::from_utf8(reply).unwrap(), format!("*2\r\n$16\r\nmaxmemory-policy\r\n$11\r\n{named}\r\n"));
        let memory = String::from_utf8(client.ask("INFO memory").await).unwrap();
        assert!(memory.contains(&format!("maxmemory_policy:{named}\r\n")), "{memory}");
        for i in 0..100 {
            client.ask(&format!("SET often{i} v")).await;
        }
        for i in (0..100).cycle().take(300) {
            client.ask(&format!("GET often{i}")).await;
        }
        // Several times as many as there is room for.
        for i in 0..5000 {
            client.ask(&format!("SET once{i} 0123456789")).await;
        }
        let mut kept = 0;
        for i in 0..100 {
            kept += u32::from(client.ask(&format!("GET often{i}")).await != b"$-1\r\n");
        }
        assert!(if outlives { kept > 80 } else { kept < 10 }, "{eviction:?}: {kept} of 100 that were used often");
    }
}

#[tokio::test]
async fn what_the_server_says_of_itself() {
    let port = Port::single().await;
    let mut client = port.client().await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    client.ask("SET a 1").await;
    client.ask("GET a").await;
    client.ask("GET b").await;
    let info = text(client.ask("INFO").await);
    for wanted in [
        "# Server\r\nredis_version:7.0.15\r\n",
        "\r\n\r\n# Clients\r\nconnected_clients:1\r\n",
        "maxmemory:67108864\r\n",
        "keyspace_hits:1\r\nkeyspace_misses:1\r\n",
        "# Replication\r\nrole:master\r\n",
        "used_cpu_user:0.",
        "# Cluster\r\ncluster_enabled:0\r\n",
        "# Keyspace\r\ndb0:keys=1,expires=",
    ] {
        assert!(info.contains(wanted), "{wanted} in {info}");
    }
    assert!(text(client.ask("INFO keyspace").await).contains("\r\n# Keyspace\r\n"));
    assert!(!text(client.ask("INFO keyspace").await).contains("# Server"));
    assert_eq!(client.ask("CONFIG GET maxmemory").await, b"*2\r\n$9\r\nmaxmemory\r\n$8\r\n67108864\r\n");
    let commands = text(client.ask("COMMAND COUNT").await);
    assert!(text(client.ask("COMMAND").await).starts_with(&format!("*{}", &commands[1..])));
    assert!(text(client.ask("COMMAND INFO GET").await).starts_with("*1\r\n*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n*3\r\n+@read\r\n+@string\r\n+@fast\r\n"));
    for help in ["CLIENT", "COMMAND", "CONFIG", "CLUSTER"] {
        assert!(text(client.ask(&format!("{help} HELP")).await).contains("Subcommands are:"));
    }
    assert_eq!(client.ask("CLUSTER KEYSLOT foo").await, b":12182\r\n");
    assert_eq!(text(client.ask("CLUSTER MYID").await).len(), "$40\r\n\r\n".len() + 40);
    assert!(text(client.ask("CLUSTER INFO").await).contains("cluster_state:ok\r\ncluster_slots_assigned:16384\r\n"));
    assert!(text(client.ask("CLUSTER SLOTS").await).starts_with("*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n"));
    assert!(text(client.ask("CLUSTER NODES").await).ends_with(" connected 0-16383\n\r\n"));
    assert!(text(client.ask("CLUSTER SHARDS").await).starts_with("*1\r\n*4\r\n$5\r\nslots\r\n*2\r\n:0\r\n:16383\r\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_of_a_hundred_thousand_commands_is_answered_in_order() {
    let port = Port::single().await;
    let mut client = port.client().await;
    let (mut requests, mut replies) = (BytesMut::new(), Vec::new());
    for i in 0..PIPELINE {
        let (request, reply) = match i % 4 {
            0 => (format!("SET k{i} v{i}"), "+OK\r\n".to_owned()),
            1 => (format!("GET k{}", i - 1), resp2(&Reply::text(&format!("v{}", i - 1)))),
            2 => (format!("ECHO {i}"), resp2(&Reply::text(&i.to_string()))),
            _ => (format!("MGET k{} none k{}", i - 3, i - 3), {
                let value = resp2(&Reply::text(&format!("v{}", i - 3)));
                format!("*3\r\n{value}$-1\r\n{value}")
            }),
        };
        requests.extend_from_slice(&frame(&inline::split(request.as_bytes()).unwrap()));
        replies.extend_from_slice(reply.as_bytes());
    }
    // All is written before anything is read, as many libraries do.
    timeout(LIMIT, client.stream.write_all(&requests)).await.unwrap().unwrap();
    assert!(client.take(replies.len()).await == replies);
    assert_eq!(client.ask("DBSIZE").await, format!(":{}\r\n", PIPELINE / 4).as_bytes());
}

#[tokio::test]
async fn requests_may_come_byte_by_byte() {
    let port = Port::single().await;
    let mut client = port.client().await;
    client.stream.set_nodelay(true).unwrap();
    let mut requests = frame(&inline::split(b"SET k \"a\\r\\nb\"").unwrap());
    requests.extend_from_slice(b"GET k\r\n\r\nping\n");
    requests.extend_from_slice(&frame(&inline::split(b"DEL k").unwrap()));
    for byte in requests {
        client.stream.write_all(&[byte]).await.unwrap();
        client.stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    let expected = b"+OK\r\n$4\r\na\r\nb\r\n+PONG\r\n:1\r\n";
    assert_eq!(client.take(expected.len()).await, expected);
}

#[tokio::test]
async fn bytes_that_are_no_command_are_named_and_end_the_connection() {
    let port = Port::single().await;
    let long = vec![b'a'; 70_000];
    let table: [(&[u8], &str); 8] = [
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"*x\r\n", "invalid multibulk length"),
        (b"*2000000\r\n", "invalid multibulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$99999999999\r\n", "invalid bulk length"),
        (b"*1048576\r\n$67108864\r\n$1\r\n", "expected CRLF after a word"),
        (b"set k \"open\r\n", "unbalanced quotes in request"),
        (&long, "too big inline request"),
    ];
    for (bytes, text) in table {
        let mut client = port.client().await;
        let mut sent = b"PING\r\n".to_vec();
        sent.extend_from_slice(bytes);
        if text.contains("CRLF") {
            sent.extend_from_slice(&vec![b'x'; 67_108_864]);
        }
        // Commands behind it are not executed.
        sent.extend_from_slice(b"\r\nSET never 1\r\n");
        let _ = client.stream.write_all(&sent).await;
        let mut answer = Vec::new();
        let _ = timeout(LIMIT, client.stream.read_to_end(&mut answer)).await.expect("the connection ends");
        assert_eq!(String::from_utf8_lossy(&answer), format!("+PONG\r\n-ERR Protocol error: {text}\r\n"));
    }
    assert_eq!(port.client().await.ask("EXISTS never").await, b":0\r\n");
}

#[tokio::test]
async fn quit_answers_what_came_before_and_nothing_after() {
    let port = Port::single().await;
    let mut client = port.client().await;
    client.stream.write_all(b"SET a 1\r\nQUIT\r\nSET b 1\r\n").await.unwrap();
    assert_eq!(client.rest().await, b"+OK\r\n+OK\r\n");
    assert_eq!(port.client().await.ask("EXISTS a b").await, b":1\r\n");
}

#[tokio::test]
async fn commands_in_frames_before_an_end_are_answered_and_none_after() {
    let port = Port::single().await;
    let ends: [(&[u8], &[u8]); 3] = [
        (b"*1\r\n$4\r\nQUIT\r\n", b"+OK\r\n"),
        (b"*1\r\n:4\r\n", b"-ERR Protocol error: expected '$', got ':'\r\n"),
        (b"*x\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    ];
    for (end, answer) in ends {
        let mut client = port.client().await;
        let mut sent = Vec::new();
        for words in [["SET", "k", "1"], ["INCRBY", "k", "2"], ["SET", "k", "v"]] {
            sent.extend_from_slice(&frame(&words.map(|word| Bytes::from_static(word.as_bytes()))));
        }
        sent.extend_from_slice(end);
        sent.extend_from_slice(&frame(&["SET", "k", "after"].map(|word| Bytes::from_static(word.as_bytes()))));
        client.stream.write_all(&sent).await.unwrap();
        assert_eq!(client.rest().await, [b"+OK\r\n:3\r\n+OK\r\n", answer].concat());
        assert_eq!(port.client().await.ask("GET k").await, b"$1\r\nv\r\n");
    }
}

#[tokio::test]
async fn the_version_of_the_protocol_changes_in_the_middle_of_a_batch() {
    let port = Port::single().await;
    let mut client = port.client().await;
    let mut sent = Vec::new();
    for words in [&["GET", "none"][..], &["MGET", "none", "none"], &["HELLO", "3"], &["GET", "none"], &["MGET", "none"]]
    {
        let words: Vec<Bytes> = words.iter().map(|word| Bytes::from_static(word.as_bytes())).collect();
        sent.extend_from_slice(&frame(&words));
    }
    sent.extend_from_slice(b"*1\r\n$4\r\nQUIT\r\n");
    client.stream.write_all(&sent).await.unwrap();
    let answers = client.rest().await;
    assert!(answers.starts_with(b"$-1\r\n*2\r\n$-1\r\n$-1\r\n%"), "{}", answers.escape_ascii());
    assert!(answers.ends_with(b"\r\n_\r\n*1\r\n_\r\n+OK\r\n"), "{}", answers.escape_ascii());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_values_is_of_one_moment() {
    let port = Port::single().await;
    let (mut writer, mut reader) = (port.client().await, port.client().await);
    writer.ask("MSET {t}a 0 {t}b 0").await;
    let writes = tokio::spawn(async move {
        for number in 1..=3000 {
            assert_eq!(writer.ask(&format!("MSET {{t}}a {number} {{t}}b {number}")).await, b"+OK\r\n");
        }
    });
    let mut seen = BTreeSet::new();
    while !writes.is_finished() {
        let list = String::from_utf8(reader.ask("MGET {t}a elsewhere {t}b").await).unwrap();
        let values: Vec<&str> = list.split("\r\n").filter(|line| !line.starts_with(['*', '$'])).collect();
        assert_eq!(values[0], values[1], "{list:?}");
        seen.insert(values[0].to_owned());
    }
    writes.await.unwrap();
    assert!(seen.len() > 10, "only {} states were seen", seen.len());
}

#[tokio::test]
async fn a_client_that_ends_its_half_is_answered_first() {
    let port = Port::single().await;
    let mut client = port.client().await;
    client.stream.write_all(b"SET a 1\r\nGET a\r\nGET").await.unwrap();
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"+OK\r\n$1\r\n1\r\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_not_served_without_bound() {
    let port = Port::single().await;
    let mut client = port.client().await;
    let value = "x".repeat(1 << 20);
    client.ask(&format!("SET big {value}")).await;
    let request = frame(&inline::split(b"GET big").unwrap());
    // Far more replies than the bound and the kernel's buffers hold.
    let count = 60;
    for _ in 0..count {
        client.stream.write_all(&request).await.unwrap();
    }
    let mut other = port.client().await;
    let list =
        other.until("CLIENT LIST", |list| figures(list, "omem").iter().any(|held| *held >= MAX_UNWRITTEN / 2)).await;
    assert!(figures(&list, "omem").iter().all(|held| *held <= MAX_UNWRITTEN + (2 << 20)), "{list}");
    let reply = resp2(&Reply::text(&value));
    for _ in 0..count {
        assert!(client.take(reply.len()).await == reply.as_bytes());
    }
    assert_eq!(client.ask("PING").await, b"+PONG\r\n");
}

fn figures(list: &str, name: &str) -> Vec<usize> {
    let start = format!("{name}=");
    list.split_ascii_whitespace().filter_map(|word| word.strip_prefix(&start)?.parse().ok()).collect()
}

#[tokio::test]
async fn values_of_many_sizes_come_back_whole() {
    let port = Port::single().await;
    let mut client = port.client().await;
    for size in [0, 1, 4095, 4096, 16_383, 16_384, 65_536, 1 << 20, (8 << 20) + 1] {
        let value = Bytes::from((0..size).map(|i| (i * 7 + size) as u8).collect::<Vec<u8>>());
        let set = [Bytes::from_static(b"SET"), Bytes::from_static(b"k"), value.clone()];
        assert_eq!(client.ask_words(&set).await, b"+OK\r\n");
        let mut expected = BytesMut::new();
        Reply::Bulk(value).encode(Protocol::Resp2, &mut expected);
        assert!(client.ask("GET k").await == expected);
    }
    let too_long = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", (64 << 20) + 1);
    client.stream.write_all(too_long.as_bytes()).await.unwrap();
    assert_eq!(client.rest().await, b"-ERR Protocol error: invalid bulk length\r\n");
}

/// Writes from a thread of its own; the most that was accounted meanwhile.
fn write_through(runtime: &Runtime, thread: u64) -> u64 {
    let mut most = 0;
    for number in 0..50_000_u64 {
        // Each thread has partitions of its own, so that nothing but the budget is between them.
        let partition = Partition((2 * (number % 8) + thread) as u16);
        let value = vec![b'v'; 1000 + (number % 700) as usize];
        let words = ["SET".into(), (number % 1000).to_string().into(), Bytes::from(value)];
        let ticket = Ticket { connection: thread, request: number, part: 0 };
        assert_eq!(runtime.submit(ticket, partition, &words), Some(Reply::OK));
        most = most.max(runtime.node().bytes());
    }
    most
}

#[tokio::test]
async fn writes_of_several_threads_do_not_pass_the_budget_together() {
    const BUDGET: u64 = 1 << 20;
    let port = Port::with(Settings { mode: Mode::Single, max_memory: Some(BUDGET), ..Settings::default() }).await;
    let (runtime, threads) = (port.runtime(), [0, 1]);
    let most = thread::scope(|scope| {
        threads.map(|thread| scope.spawn(move || write_through(runtime, thread))).map(|thread| thread.join().unwrap())
    });
    assert!(most.iter().all(|most| *most <= BUDGET), "{most:?} of {BUDGET}");
    assert!(most.iter().all(|most| *most > BUDGET / 2), "{most:?} of {BUDGET}");
}

#[tokio::test]
async fn a_node_that_closes_ends_connections_between_commands() {
    let port = Port::single().await;
    let mut idle = port.client().await;
    let mut busy = port.client().await;
    idle.ask("PING").await;
    busy.ask("SET a 1").await;
    // Half a command is no command.
    busy.stream.write_all(b"*2\r\n$3\r\nGET\r\n$1\r\n").await.unwrap();
    port.runtime().close_clients();
    assert_eq!(idle.rest().await, b"");
    assert_eq!(busy.rest().await, b"");
    port.stopped().await;
    assert!(tokio::net::TcpStream::connect(port.address).await.is_err());
}

#[tokio::test]
async fn a_disabled_cache_finds_nothing_and_takes_everything() {
    let port = Port::start(Mode::Disabled).await;
    let mut client = port.client().await;
    for (request, reply) in [
        ("SET a 1", "+OK\r\n"),
        ("GET a", "$-1\r\n"),
        ("MSET a 1 b 2", "+OK\r\n"),
        ("MGET a b", "*2\r\n$-1\r\n$-1\r\n"),
        ("INCR a", ":1\r\n"),
        ("DM.PUT m a 1", "+OK\r\n"),
        ("DM.GET m a", "-KEYNOTFOUND key not found\r\n"),
        ("DBSIZE", ":0\r\n"),
        ("SCAN 0", "*2\r\n$1\r\n0\r\n*0\r\n"),
        ("FLUSHALL", "+OK\r\n"),
        ("PING", "+PONG\r\n"),
    ] {
        assert_eq!(String::from_utf8(client.ask(request).await).unwrap(), reply, "{request}");
    }
}

/// A pipeline over all partitions of three members, each reply of which comes from elsewhere or waits for a copy.
async fn mixed_pipeline(client: &mut Client, name: &str) {
    let count = MAX_IN_FLIGHT * 5;
    let (mut requests, mut replies) = (Vec::new(), String::new());
    for i in 0..count {
        let (request, reply) = match i % 5 {
            0 => (format!("SET {name}:{i} {i}"), "+OK\r\n".to_owned()),
            1 => (format!("APPEND {name}:{} x", i - 1), format!(":{}\r\n", (i - 1).to_string().len() + 1)),
            2 => (format!("GET {name}:{}", i - 2), resp2(&Reply::text(&format!("{}x", i - 2)))),
            3 => (format!("INCR {name}:counter"), format!(":{}\r\n", i / 5 + 1)),
            _ => (format!("EXISTS {name}:{} none {name}:counter", i - 4), ":2\r\n".to_owned()),
        };
        requests.extend_from_slice(&frame(&inline::split(request.as_bytes()).unwrap()));
        replies.push_str(&reply);
    }
    let (mut reader, mut writer) = client.stream.split();
    let mut got = vec![0; replies.len()];
    let both = async { tokio::join!(writer.write_all(&requests), reader.read_exact(&mut got)) };
    let (wrote, read) = timeout(LIMIT, both).await.expect("replies in time");
    wrote.unwrap();
    read.unwrap();
    let text = String::from_utf8_lossy(&got);
    for (line, (got, wanted)) in text.split("\r\n").zip(replies.split("\r\n")).enumerate() {
        assert_eq!(got, wanted, "line {line} of the replies to {name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_member_answers_for_any_key_in_the_order_of_requests() {
    support::log();
    let place = Place::new();
    let members = place.cluster(3).await;
    let mut ports = Vec::new();
    for member in &members {
        ports.push(Port::of(member.runtime().clone()).await);
    }
    let mut tasks = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let mut client = port.client().await;
        tasks.push(tokio::spawn(async move { mixed_pipeline(&mut client, &format!("p{i}")).await }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let keys = 3 * (MAX_IN_FLIGHT + 1);
    let mut client = ports[1].client().await;
    assert_eq!(client.ask("DBSIZE").await, format!(":{keys}\r\n").as_bytes());
    assert_eq!(client.ask("MGET p0:0 none p2:5 p1:10").await, b"*4\r\n$2\r\n0x\r\n$-1\r\n$2\r\n5x\r\n$3\r\n10x\r\n");
    assert_eq!(scan_all(&mut client).await.len(), keys);
    let slots = String::from_utf8(client.ask("CLUSTER SLOTS").await).unwrap();
    for member in 1..=3 {
        assert!(slots.contains(&place.name(member)), "{slots}");
    }
    assert_eq!(client.ask("DEL p0:0 p1:0 p2:0 none").await, b":3\r\n");
    assert_eq!(client.ask("DM.PUT m k v").await, b"+OK\r\n");
    assert_eq!(ports[2].client().await.ask("DM.GET m k").await, b"$1\r\nv\r\n");
    assert_eq!(client.ask("FLUSHALL").await, b"+OK\r\n");
    assert_eq!(client.ask("DBSIZE").await, b":0\r\n");
    assert_eq!(client.ask("DM.GET m k").await, b"-KEYNOTFOUND key not found\r\n");
}

async fn scan_all(client: &mut Client) -> BTreeSet<Bytes> {
    let (mut keys, mut cursor) = (BTreeSet::new(), "0".to_owned());
    loop {
        let reply = client.ask(&format!("SCAN {cursor} COUNT 100")).await;
        let Ok(Reply::Array(mut items)) = Reply::from_resp3(&Bytes::from(reply)) else { panic!("a page") };
        let (Some(Reply::Array(page)), Some(Reply::Bulk(next))) = (items.pop(), items.pop()) else { panic!("a page") };
        for key in page {
            let Reply::Bulk(key) = key else { panic!("a key") };
            assert!(keys.insert(key), "a key twice");
        }
        cursor = String::from_utf8(next.to_vec()).unwrap();
        if cursor == "0" {
            return keys;
        }
    }
}

/// Runs a program of Redis; none: it is not installed.
async fn program(port: &Port, name: &str, arguments: &[&str]) -> Option<String> {
    let number = port.address.port().to_string();
    let mut command = Command::new(name);
    command.args(["-h", "127.0.0.1", "-p", &number]).args(arguments).kill_on_drop(true);
    let output = timeout(Duration::from_mins(1), command.output()).await.expect("it ends");
    let output = output.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {text}");
    Some(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_programs_of_redis_work() {
    let port = Port::single().await;
    let Some(set) = program(&port, "redis-cli", &["SET", "k", "v"]).await else {
        println!("redis-cli is not installed: nothing was tested");
        return;
    };
    assert_eq!(set, "OK\n");
    assert_eq!(program(&port, "redis-cli", &["-3", "GET", "k"]).await.unwrap(), "v\n");
    assert_eq!(program(&port, "redis-cli", &["--scan"]).await.unwrap(), "k\n");
    assert!(program(&port, "redis-cli", &["INFO", "server"]).await.unwrap().contains("redis_version:7"));
    assert!(program(&port, "redis-cli", &["CLIENT", "LIST"]).await.unwrap().starts_with("id="));
    for arguments in [
        &["-q", "-n", "20000", "-c", "10", "-t", "ping,set,get,incr,mset"][..],
        &["-q", "-n", "50000", "-P", "64", "-r", "1000", "-t", "set,get"],
        &["-3", "-q", "-n", "5000", "-d", "20000", "-t", "set,get"],
    ] {
        let text = program(&port, "redis-benchmark", arguments).await.unwrap();
        assert!(text.contains("requests per second") && !text.contains("WARNING"), "{text}");
    }
}
