//! The network: a bridge, and a network namespace for each process, whose links can be cut and slowed down.
//!
//! Everything is made in the driver's own network namespace (`scripts/chaos.sh` has made that), and goes with it. What
//! always holds: a cut drops packets at the host that it is named after, and nobody is told.

use std::fmt;

use crate::command::run;
use crate::error::Failure;

/// The first three numbers of all addresses.
const NET: &str = "10.83.0";
/// The last number of the driver and the clients, who are on the bridge itself.
pub(crate) const CLIENTS: u8 = 1;

/// A process's place in the network: the last number of its address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Host(pub(crate) u8);

impl Host {
    /// Its address.
    pub(crate) fn address(self) -> String {
        format!("{NET}.{}", self.0)
    }

    /// The name of its namespace.
    pub(crate) fn namespace(self) -> String {
        format!("ringway-{}", self.0)
    }
}

/// Which packets a cut drops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    /// Those that come and those that go.
    Both,
    /// Those that come.
    In,
    /// Those that go.
    Out,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Both => "both ways",
            Direction::In => "one way, what comes",
            Direction::Out => "one way, what goes",
        })
    }
}

/// The bridge with its hosts.
pub(crate) struct Network {
    hosts: Vec<Host>,
}

impl Network {
    /// Makes the bridge, with the driver on it.
    pub(crate) fn create() -> Result<Network, Failure> {
        run(&["ip", "link", "set", "lo", "up"])?;
        run(&["ip", "link", "add", "ringway", "type", "bridge"])?;
        run(&["ip", "address", "add", &format!("{}/24", Host(CLIENTS).address()), "dev", "ringway"])?;
        run(&["ip", "link", "set", "ringway", "up"])?;
        Ok(Network { hosts: Vec::new() })
    }

    /// A namespace on the bridge.
    pub(crate) fn add(&mut self, host: Host) -> Result<(), Failure> {
        let (name, end) = (host.namespace(), format!("rw{}", host.0));
        run(&["ip", "netns", "add", &name])?;
        run(&["ip", "link", "add", &end, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
        run(&["ip", "link", "set", &end, "master", "ringway", "up"])?;
        let inside = |words: &[&str]| run(&[&["ip", "-n", &name], words].concat());
        inside(&["address", "add", &format!("{}/24", host.address()), "dev", "eth0"])?;
        inside(&["link", "set", "lo", "up"])?;
        inside(&["link", "set", "eth0", "up"])?;
        let rules = "add table inet chaos; \
                     add chain inet chaos in { type filter hook input priority 0; }; \
                     add chain inet chaos out { type filter hook output priority 0; }";
        run(&["ip", "netns", "exec", &name, "nft", rules])?;
        self.hosts.push(host);
        Ok(())
    }

    /// Drops at `host` what comes from `others`, or goes to them.
    pub(crate) fn cut(&self, host: Host, others: &[Host], direction: Direction) -> Result<(), Failure> {
        let addresses: Vec<String> = others.iter().map(|other| other.address()).collect();
        let addresses = addresses.join(", ");
        let coming = format!("add rule inet chaos in ip saddr {{ {addresses} }} drop");
        let going = format!("add rule inet chaos out ip daddr {{ {addresses} }} drop");
        let rules = match direction {
            Direction::Both => format!("{coming}; {going}"),
            Direction::In => coming,
            Direction::Out => going,
        };
        run(&["ip", "netns", "exec", &host.namespace(), "nft", &rules]).map(drop)
    }

    /// Ends all cuts at `host`.
    pub(crate) fn mend(&self, host: Host) -> Result<(), Failure> {
        run(&["ip", "netns", "exec", &host.namespace(), "nft", "flush table inet chaos"]).map(drop)
    }

    /// Delays all that `host` sends; says how.
    pub(crate) fn slow_down(&self, host: Host) -> Result<&'static str, Failure> {
        let queue = |words: &[&str]| {
            run(&[&["tc", "-n", &host.namespace(), "qdisc", "replace", "dev", "eth0", "root"], words].concat())
        };
        // Not every kernel has the first; the second delays by what waits before a narrow line.
        if queue(&["netem", "delay", "150ms", "100ms"]).is_ok() {
            return Ok("netem: 50 to 250 ms");
        }
        queue(&["tbf", "rate", "400kbit", "burst", "3000", "latency", "1500ms"])?;
        Ok("a line of 400 kbit/s, up to 1.5 s")
    }

    /// No delay at `host` any more.
    pub(crate) fn speed_up(&self, host: Host) -> Result<(), Failure> {
        run(&["tc", "-n", &host.namespace(), "qdisc", "delete", "dev", "eth0", "root"]).map(drop)
    }

    /// Gives `to` an address beside its own, and takes it from all others.
    pub(crate) fn move_address(&self, address: Host, to: Host) -> Result<(), Failure> {
        let cidr = format!("{}/24", address.address());
        for host in self.hosts.iter().filter(|host| **host != to) {
            // Most do not have it.
            drop(run(&["ip", "-n", &host.namespace(), "address", "delete", &cidr, "dev", "eth0"]));
        }
        run(&["ip", "-n", &to.namespace(), "address", "add", &cidr, "dev", "eth0"])?;
        // Who remembers where it was asks again.
        for host in &self.hosts {
            drop(run(&["ip", "-n", &host.namespace(), "neigh", "flush", "to", &address.address()]));
        }
        drop(run(&["ip", "neigh", "flush", "to", &address.address()]));
        Ok(())
    }
}
