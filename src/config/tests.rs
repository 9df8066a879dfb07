#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::Path;

use super::keys::KEYS;
use super::typed::Typed;
use super::*;
use crate::contract::traffic::TrafficLimit;
use crate::rate::Rate;

fn typed(file: &str, env: &[(&str, &str)], flags: &[&str]) -> Result<Typed, String> {
    let mut typed = Typed::defaults();
    typed.read_toml(file, Path::new("gateway.toml")).map_err(|e| e.to_string())?;
    let vars = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    typed.read_environment(vars).map_err(|e| e.to_string())?;
    for flag in flags {
        typed.set_pair(flag).map_err(|e| e.to_string())?;
    }
    Ok(typed)
}

fn config(file: &str, env: &[(&str, &str)], flags: &[&str]) -> Result<Config, String> {
    Config::new(&typed(file, env, flags)?).map_err(|e| e.to_string())
}

fn refused(file: &str, expected: &str) {
    let error = config(file, &[], &[]).expect_err(file);
    assert!(error.contains(expected), "{file}: expected {expected:?} in {error:?}");
}

#[test]
fn the_defaults_alone_are_a_configuration() {
    let config = config("", &[], &[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:7400");
    assert_eq!(config.admin.to_string(), "127.0.0.1:7401");
    assert_eq!(config.auth, Auth::Development);
    assert_eq!(config.limits.outbox_bytes_max, limits::OUTBOX_BYTES_MAX);
    assert_eq!(config.limits.connections_max, limits::CONNECTIONS_MAX);
    assert_eq!(config.limits.stream_entries_max, limits::STREAM_UNSTORED_MAX);
    assert_eq!(config.limits.traffic, TrafficLimits::default());
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let file = "[session]\nheartbeat_s = 11\ndevices_max = 3\n[cluster]\nnode_id = 1\n";
    let env = [("RINGWAY_SESSION_HEARTBEAT_S", "22"), ("RINGWAY_CLUSTER_NODE_ID", "2")];
    let config = config(file, &env, &["cluster.node_id=3"]).unwrap();
    assert_eq!((config.cluster.node_id, config.session.heartbeat_s, config.session.devices_max), (3, 22, 3));
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one() {
    refused("[session]\nheartbeet_s = 3", "did you mean `session.heartbeat_s`?");
    refused("heartbeat_s = 3", "did you mean `session.heartbeat_s`?");
    refused("listn = \"127.0.0.1:1\"", "did you mean `listen`?");
    refused("[limits]\nconnection_max = 3", "did you mean `limits.connections_max`?");
    refused("zzzz = 3", "--print-config");
    let error = config("", &[("RINGWAY_SESSION_HEARTBEATS", "1")], &[]).unwrap_err();
    assert!(error.contains("did you mean `session.heartbeat_s`?"), "{error}");
    let error = config("", &[], &["dta_dir=x"]).unwrap_err();
    assert!(error.contains("did you mean `data_dir`?"), "{error}");
}

#[test]
fn variables_that_are_no_keys_are_left_alone() {
    let env = [
        ("RINGWAY_SERVICE_HOST", "10.0.0.1"),
        ("RINGWAY_PORT_7400_TCP", "x"),
        ("RINGWAY_TOKEN", "x"),
        ("RINGWAY_TEST_MYSQL_URL", "x"),
        ("PATH", "x"),
    ];
    config("", &env, &[]).unwrap();
}

#[test]
fn values_out_of_range_say_what_would_do() {
    refused("[cluster]\nnode_id = 1024", "from 0 to 1023");
    refused("[cluster]\nbuckets = 0", "from 1 to 16");
    refused("[cluster]\nbuckets = 17", "from 1 to 16");
    refused("[limits]\nnames_s = 14", "from 15 to 900");
    refused("[limits]\nnames_s = 901", "from 15 to 900");
    refused("[cluster]\nredis_url = \"http://192.0.2.1\"", "redis-cluster://");
    refused("[cluster]\nredis_url = \"redis-cluster://192.0.2.1:6379\"", "one mysql://... database");
    refused("[limits]\nstream_entries_max = 255", "from 256 to 1048576");
    refused("[limits]\noutbox_bytes_max = 131071", "from 131072 to");
    refused("[limits]\noutbox_bytes_per_shard_max = 1048575", "from 1048576 to");
    refused("listen = \"nowhere\"", "ADDRESS:PORT");
    refused("shards = 0", "from 1 to");
    refused("cpus = \"3-1\"", "CPU numbers");
    refused("[session]\ndevice_policy = \"x\"", "replace-oldest or refuse-new");
    for key in ["direct_messages", "group_creation", "adding_members", "presence"] {
        refused(&format!("[policy]\n{key} = \"x\""), " or nobody");
    }
    refused("[store]\nurl = \"mysql://root@localhost\"", "names no database");
    refused("[store]\nurl = \"mysql://root@localhost/db?colour=red\"", "Unknown connection URL parameter `colour'");
    refused("[store]\nurl = \"postgres://root@localhost/db\"", "expected sqlite:");
    refused("[store]\nbatch_rows = 0", "from 1 to");
    refused("[store]\npool_size = 1", "from 2 to");
    refused("[log]\nformat = \"xml\"", "human, json or auto");
    for level in ["warning", "verbose", "ringway", "info,verbose", "ringway=warning", "info,", "1 2"] {
        refused(&format!("[log]\nlevel = \"{level}\""), "off, error, warn, info, debug, trace");
    }
    refused("listen = [1]", "must be a text or a number, not array");
}

#[test]
fn other_machines_may_connect_only_if_tokens_are_verified() {
    refused("listen = \"0.0.0.0:7400\"", "set auth.hs256_secret");
    refused("[auth]\nhs256_secret = \"short\"", "at least 32 bytes");
    refused("[auth]\nhs256_secret_file = \"a\"\neddsa_public_key_file = \"b\"", "both set");
    let file = "listen = \"0.0.0.0:7400\"\n[auth]\nhs256_secret = \"0123456789abcdef0123456789abcdef\"";
    assert!(matches!(config(file, &[], &[]).unwrap().auth, Auth::Secret(_)));
}

#[test]
fn a_secret_is_never_printed() {
    let secret = "0123456789abcdef0123456789abcdef";
    let typed = typed("", &[("RINGWAY_AUTH_HS256_SECRET", secret)], &[]).unwrap();
    let config = Config::new(&typed).unwrap();
    assert!(!typed.print().contains(secret));
    assert!(!format!("{config:?}").contains(secret));
    let url = "[store]\nurl = \"mysql://ringway:topsecret@db:3306/ringway\"";
    let with_url = self::typed(url, &[], &[]).unwrap();
    assert!(with_url.print().contains("mysql://ringway:(hidden)@db:3306/ringway"), "{}", with_url.print());
    assert!(!format!("{:?}", Config::new(&with_url).unwrap()).contains("topsecret"));
    for bad in ["mysql://ringway:topsecret@db", "mysql://ringway:top/topsecret@db/x", "postgres://a:topsecret@b/c"] {
        assert!(!config_error(&format!("[store]\nurl = \"{bad}\"")).contains("topsecret"), "{bad}");
    }
    let short = config_error("[auth]\nhs256_secret = \"topsecret\"");
    assert!(!short.contains("topsecret"), "{short}");
}

fn config_error(file: &str) -> String {
    config(file, &[], &[]).unwrap_err()
}

#[test]
fn what_is_printed_can_be_read_again_and_says_where_it_came_from() {
    let typed = typed("[cluster]\nnode_id = 7", &[("RINGWAY_SHARDS", "2")], &["cpus=0,2-3"]).unwrap();
    let printed = typed.print();
    assert!(printed.contains("node_id = 7  # file gateway.toml"), "{printed}");
    assert!(printed.contains("shards = \"2\"  # environment RINGWAY_SHARDS"), "{printed}");
    assert!(printed.contains("cpus = \"0,2-3\"  # command line"), "{printed}");
    let again = config(&printed, &[], &[]).unwrap();
    assert_eq!((again.cluster.node_id, again.shards, again.cpus), (7, Shards::Count(2), Some(vec![0, 2, 3])));
}

#[test]
fn every_key_is_documented_and_has_one_place() {
    for key in KEYS {
        assert!(!key.about.is_empty(), "{}", key.name);
        assert_eq!(KEYS.iter().filter(|other| other.name == key.name).count(), 1, "{}", key.name);
    }
}

#[test]
fn a_level_or_parts_with_a_level_each_are_taken() {
    for level in ["off", "warn", "INFO", "debug", "ringway=debug", "info,ringway::net=trace,glommio=off"] {
        let taken = config("", &[], &[&format!("log.level={level}")]).unwrap();
        assert_eq!(taken.log.level, level);
    }
}

#[test]
fn a_rate_is_so_much_a_second_and_so_much_at_once_or_off() {
    for (typed, expected) in [
        ("3/s, burst 5000", Rate::new(3, 5_000)),
        (" 1_000/s,burst 20_000 ", Rate::new(1_000, 20_000)),
        ("off", Rate::UNLIMITED),
    ] {
        let taken = config("", &[], &[&format!("limits.user_rows={typed}")]).unwrap();
        assert_eq!(taken.limits.traffic.user_rows, expected, "{typed}");
    }
    for typed in
        ["0/s, burst 5000", "3/s, burst 4999", "3/s", "3, 5000", "64000001/s, burst 5000", "3/m, burst 5000", ""]
    {
        refused(&format!("[limits]\nuser_rows = \"{typed}\""), "as in \"1000/s, burst 20000\"");
    }
    refused("[limits]\ngroup_sends = \"1/s, burst 0\"", "at least 1 at once");
    refused("[limits]\nuser_bytes = \"1/s, burst 50000\"", "at least 56384 at once");
}

#[test]
fn every_limit_of_what_an_account_may_send_is_a_key_of_its_own_name() {
    for limit in TrafficLimit::ALL {
        let name = format!("limits.{}", limit.name());
        assert!(KEYS.iter().any(|key| key.name == name), "{name}");
    }
}

/// The tables of configuration keys on a page and on all pages below.
fn tables(path: &Path, found: &mut Vec<Vec<String>>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            tables(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "md") {
        let text = std::fs::read_to_string(path).unwrap();
        let head = text.lines().position(|line| line.starts_with("| key | default |"));
        let rows = |head| text.lines().skip(head + 2).take_while(|line| line.starts_with('|')).map(str::to_owned);
        found.extend(head.map(|head| rows(head).collect()));
    }
}

/// What the documentation says of each key: its name, and its default if that is a value and no words.
fn documented() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for place in ["README.md", "src", "tuning"] {
        tables(&Path::new(env!("CARGO_MANIFEST_DIR")).join(place), &mut found);
    }
    assert_eq!(found.len(), 1, "there is one table of the configuration");
    let code = |cell: &str| cell.trim().strip_prefix('`').map(|code| code.trim_end_matches('`').to_owned());
    let row = |line: &String| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        assert!(cells.len() == 3 && !cells[2].trim().is_empty(), "{line}");
        (code(cells[0]).unwrap_or_else(|| panic!("{line}")), code(cells[1]).unwrap_or_default())
    };
    found[0].iter().map(row).collect()
}

#[test]
fn the_documented_keys_are_the_keys_there_are_in_their_order_with_their_defaults() {
    let keys: Vec<(String, String)> = KEYS.iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect();
    assert_eq!(documented(), keys);
}

#[test]
fn the_least_values_that_are_taken_are_written_down_where_the_keys_are() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/README.md")).unwrap();
    for (name, least) in [
        ("limits.outbox_bytes_max", limits::OUTBOX_BYTES_MIN),
        ("limits.outbox_bytes_per_shard_max", limits::OUTBOX_SHARD_BYTES_MIN),
    ] {
        let said = format!("at least {least}");
        let key = KEYS.iter().find(|key| key.name == name).unwrap();
        assert!(key.about.contains(&said), "{name}: {}", key.about);
        let line = page.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).unwrap();
        assert!(line.contains(&said), "{line}");
        config(&format!("[limits]\n{} = {least}", name.trim_start_matches("limits.")), &[], &[]).unwrap();
    }
}
