//! Who is who: which process has which user, who is in which group, who sends to whom; all by arithmetic.
//!
//! Pure functions of the plan, the same in every process, so that half a million clients need no tables and no
//! process has to ask another. What always holds: a group's members are distinct and lie in all processes;
//! everybody is in as many groups as anybody else, or in one more.

use ringway_wire::ids::UserId;

/// Who is who in one process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Assignment {
    first_user: u64,
    connections: u64,
    processes: u64,
    process: u64,
    groups: u64,
    members: u64,
    /// Member `m` of all memberships is user `m * stride` modulo the connections.
    stride: u64,
    /// `stride * inverse` is 1 modulo the connections.
    inverse: u64,
}

/// How many there are of everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// The first user's number.
    pub first_user: u64,
    /// Connections of all processes, a user each.
    pub connections: u32,
    /// Processes.
    pub processes: u32,
    /// Groups.
    pub groups: u32,
    /// Members of each; no more than connections.
    pub members: u32,
}

impl Assignment {
    /// The plan as process `process` sees it.
    pub(crate) fn new(counts: Counts, process: u32) -> Assignment {
        let connections = u64::from(counts.connections.max(1));
        let stride = stride(connections);
        Assignment {
            first_user: counts.first_user,
            connections,
            processes: u64::from(counts.processes.max(1)),
            process: u64::from(process),
            groups: u64::from(counts.groups),
            members: u64::from(counts.members).min(connections),
            stride,
            inverse: inverse(stride, connections),
        }
    }

    /// Clients of this process.
    pub(crate) fn share(&self) -> u32 {
        (self.connections.saturating_sub(self.process)).div_ceil(self.processes) as u32
    }

    /// The user that this process's client `local` logs in.
    pub(crate) fn user(&self, local: u32) -> UserId {
        UserId(self.first_user + self.number(local))
    }

    /// The client that logs `user` in, if it is of this process.
    pub(crate) fn local(&self, user: UserId) -> Option<u32> {
        let number = user.0.checked_sub(self.first_user).filter(|number| *number < self.connections)?;
        (number % self.processes == self.process).then_some((number / self.processes) as u32)
    }

    /// Members of each group.
    pub(crate) fn members(&self) -> u32 {
        self.members as u32
    }

    /// Member `place` of a group; the first is its owner, who sends.
    pub(crate) fn member(&self, group: u32, place: u32) -> UserId {
        let membership = u64::from(group) * self.members + u64::from(place);
        UserId(self.first_user + (membership % self.connections) * self.stride % self.connections)
    }

    /// The groups whose owner is a client of this process.
    pub(crate) fn own_groups(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.groups as u32).filter(|group| self.local(self.member(*group, 0)).is_some())
    }

    /// In how many groups a client is at most.
    pub(crate) fn layers(&self) -> u32 {
        (self.groups * self.members).div_ceil(self.connections) as u32
    }

    /// Which of its memberships, below [`Self::layers`], a client has in a group; `None`: it is no member.
    pub(crate) fn layer(&self, local: u32, group: u32) -> Option<u32> {
        let first = self.first_membership(local);
        let start = u64::from(group) * self.members;
        let layer = start.saturating_sub(first).div_ceil(self.connections);
        let membership = first + layer * self.connections;
        let inside = membership >= start && membership < start + self.members && u64::from(group) < self.groups;
        inside.then_some(layer as u32)
    }

    /// The group a client is in by its membership `layer`.
    pub(crate) fn group(&self, local: u32, layer: u32) -> Option<u32> {
        let membership = self.first_membership(local) + u64::from(layer) * self.connections;
        (membership < self.groups * self.members).then(|| (membership / self.members) as u32)
    }

    /// To whom of the same process a client sends its direct messages; `None`: it is alone.
    pub(crate) fn recipient(&self, local: u32) -> Option<u32> {
        let share = self.share();
        (share > 1).then(|| (local + share / 2) % share)
    }

    /// From whom it receives them.
    pub(crate) fn sender(&self, local: u32) -> Option<u32> {
        let share = self.share();
        (share > 1).then(|| (local + share - share / 2) % share)
    }

    /// A client's number among all.
    fn number(&self, local: u32) -> u64 {
        u64::from(local) * self.processes + self.process
    }

    fn first_membership(&self, local: u32) -> u64 {
        self.number(local) * self.inverse % self.connections
    }
}

/// A step that visits all of `0..n` before it comes back, in no order that means anything: near the golden section.
fn stride(n: u64) -> u64 {
    let near = (n as f64 * 0.618_033_988_75) as u64;
    (near.max(1)..).find(|step| gcd(*step, n) == 1).unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The number that `a` times it is 1 modulo `n`; they have no common divisor.
fn inverse(a: u64, n: u64) -> u64 {
    let (mut r, mut next_r) = (n as i128, (a % n) as i128);
    let (mut t, mut next_t) = (0i128, 1i128);
    while next_r != 0 {
        let quotient = r / next_r;
        (r, next_r) = (next_r, r - quotient * next_r);
        (t, next_t) = (next_t, t - quotient * next_t);
    }
    t.rem_euclid(n as i128) as u64
}

#[cfg(test)]
mod tests;
