//! More connections than descriptors: those who are in stay and are served, the others are told, and when some leave
//! there is room again.
//!
//! A process may open no more than its own limit either, so that each part of a crowd is a thread with a table of
//! descriptors of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringway::limits::DESCRIPTORS_FREE_OF_CLIENTS;
use ringway_client::Event;
use ringway_wire::ids::{Conversation, DeviceId, Seq, UserId};
use ringway_wire::schema::CloseReason;
use socket2::{Domain, Socket, Type};

use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE, log_in, token};

/// Part of a crowd: sockets that a thread of its own holds, each of which has asked to log in.
struct Part {
    orders: Sender<Order>,
    counts: Receiver<Counts>,
    thread: JoinHandle<()>,
}

enum Order {
    /// Say how it stands; those who are in must answer.
    Count,
    /// So many of those who are in leave.
    Leave(usize),
}

/// What became of the sockets of a part.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Counts {
    /// Logged in, and answered just now.
    served: usize,
    /// Told that the gateway is full, and when to come back.
    told: usize,
    /// Anything else.
    otherwise: usize,
}

impl Part {
    /// `count` users from `first` on, who connect one after another.
    fn open(addr: SocketAddr, source: u8, first: u64, count: u64) -> Part {
        let (orders, receive_orders) = channel();
        let (send_counts, counts) = channel();
        let thread = std::thread::spawn(move || {
            take_own_descriptors();
            let mut clients: Vec<Connection> = (first..first + count).map(|user| ask_in(addr, source, user)).collect();
            let mut counts = Counts::default();
            clients.retain_mut(|client| is_in(client, &mut counts));
            send_counts.send(Counts { served: clients.len(), ..counts }).unwrap();
            for order in receive_orders {
                match order {
                    Order::Leave(leaving) => drop(clients.split_off(clients.len() - leaving)),
                    Order::Count => {
                        let served = clients.iter_mut().filter_map(|client| answers(client).then_some(())).count();
                        send_counts.send(Counts { served, otherwise: clients.len() - served, told: 0 }).unwrap();
                    }
                }
            }
        });
        Part { orders, counts, thread }
    }

    /// What became of them.
    fn counts(&self) -> Counts {
        self.counts.recv_timeout(PATIENCE * 2).unwrap()
    }

    /// All leave.
    fn end(self) {
        drop(self.orders);
        self.thread.join().unwrap();
    }
}

/// From now on this thread's descriptors are its own: as many as a process may have.
pub(crate) fn take_own_descriptors() {
    unshare(CloneFlags::CLONE_FILES).unwrap();
    // SAFETY: this thread's table is a copy; what it held belongs to other threads, whose own descriptors stay open.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    assert_eq!(closed, 0, "{}", std::io::Error::last_os_error());
}

/// A connection that has asked to log in, and has not looked for the answer.
fn ask_in(addr: SocketAddr, source: u8, user: u64) -> Connection {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    choose_port_at_connect(&socket);
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, source), 0));
    socket.bind(&from.into()).unwrap();
    socket.connect_timeout(&addr.into(), PATIENCE).unwrap();
    let mut client = Connection::over(TcpStream::from(socket)).unwrap();
    // Who was refused already may have been closed: the answer says it.
    drop(client.ask_to_log_in(&token(user, 1), DeviceId(1), Some(Seq(0))));
    client
}

/// Without it the kernel looks for a port that is free for whatever peer, and with thousands taken looks long.
pub(crate) fn choose_port_at_connect(socket: &Socket) {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the option's value is one int that lives through the call.
    let set = unsafe {
        let (level, name) = (libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT);
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const on).cast(), length)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// Reads the answer to a login; counts those who did not get in.
fn is_in(client: &mut Connection, counts: &mut Counts) -> bool {
    match client.next(PATIENCE) {
        Ok(Some(Event::LoggedIn(_))) => return true,
        Ok(Some(Event::Closing {
            reason: CloseReason::Overloaded,
            reconnect_after_ms: Some(reconnect_after_ms),
            ..
        })) if reconnect_after_ms > 0 => {
            counts.told += 1;
        }
        _ => counts.otherwise += 1,
    }
    false
}

fn answers(client: &mut Connection) -> bool {
    let Ok(request) = client.ping() else { return false };
    matches!(client.answer(request, PATIENCE), Ok(Event::Pong { .. }))
}

fn send_and_get(from: &mut Connection, to: &mut Connection, to_user: u64, body: &[u8]) {
    let name = from.new_client_msg_id();
    let request = from.send(Conversation::User(UserId(to_user)), name, body).unwrap();
    assert!(matches!(from.answer(request, PATIENCE).unwrap(), Event::Sent { .. }));
    let row = to.next(PATIENCE).unwrap();
    assert!(matches!(&row, Some(Event::Row(row)) if row.body == body), "{row:?}");
}

/// The sum over shards of a metric, the labels given.
pub(crate) fn metric(gateway: &Gateway, name: &str, labels: &str) -> u64 {
    let page = gateway.admin_page("/metrics");
    let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(labels));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn of_20000_connections_as_many_stay_as_there_are_descriptors_and_the_others_are_told() {
    const DESCRIPTORS: usize = 15_000;
    const CONNECTIONS: usize = 20_000;
    raise_own_limit();
    let dir = tempfile::tempdir().unwrap();
    let limit = format!("--nofile={DESCRIPTORS}");
    let mut command = Gateway::command_under("prlimit", &[&limit], dir.path(), &["--shards", "1"]);
    // On a busy machine the crowd may need longer than the usual time to say who it is.
    let mut gateway = Gateway::spawn(dir.path(), command.env("RINGWAY_SESSION_LOGIN_TIMEOUT_S", "60"));
    let addr = gateway.addr();
    let (mut early, mut friend) = (gateway.client(1, 1, None), gateway.client(2, 1, None));

    let half = CONNECTIONS as u64 / 2;
    let parts = [(2, 1_000_000), (3, 2_000_000)].map(|(source, first)| Part::open(addr, source, first, half));
    // Those who are in do not notice.
    for at in 0..20 {
        send_and_get(&mut early, &mut friend, 2, format!("meanwhile {at}").as_bytes());
    }
    let counts = parts.each_ref().map(Part::counts);
    let (served, told) = (counts[0].served + counts[1].served, counts[0].told + counts[1].told);
    assert_eq!(counts.map(|counts| counts.otherwise), [0, 0], "nobody is left without a word: {counts:?}");
    assert_eq!(served + told, CONNECTIONS);
    assert!((DESCRIPTORS - 1_000..DESCRIPTORS).contains(&(served + 2)), "{served} of {DESCRIPTORS} are served");
    gateway.wait_until("those refused are counted", |gateway| {
        metric(gateway, "ringway_shed_total", "what=\"connections\"") == told as u64
            && metric(gateway, "ringway_closes_total", "reason=\"Overloaded\"") == told as u64
    });

    // When some leave, as many others get in, and no more.
    const LEAVING: usize = 100;
    parts[0].orders.send(Order::Leave(LEAVING)).unwrap();
    let left = served + 2 - LEAVING;
    gateway.wait_until("they have left", |gateway| metric(gateway, "ringway_connections{", "") == left as u64);
    let later = Part::open(addr, 4, 3_000_000, LEAVING as u64 + 10);
    assert_eq!(later.counts(), Counts { served: LEAVING, told: 10, otherwise: 0 });

    // All the others are still served.
    parts.iter().for_each(|part| part.orders.send(Order::Count).unwrap());
    let counts = parts.each_ref().map(Part::counts);
    assert_eq!(counts[0].served + counts[1].served, served - LEAVING, "{counts:?}");
    assert_eq!(counts.map(|counts| counts.otherwise), [0, 0]);
    send_and_get(&mut early, &mut friend, 2, b"and afterwards");
    parts.into_iter().chain([later]).for_each(Part::end);
}

#[test]
fn a_gateway_whose_limit_is_lowered_below_what_it_needs_still_tells_those_it_refuses() {
    raise_own_limit();
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let (mut early, mut friend) = (gateway.client(1, 1, None), gateway.client(2, 1, None));
    // What is reserved for the gateway itself is no help now.
    const ROOM: u64 = DESCRIPTORS_FREE_OF_CLIENTS + 100;
    let open = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count() as u64;
    let limit = libc::rlimit { rlim_cur: open + ROOM, rlim_max: open + ROOM };
    // SAFETY: the process is the test's own; the struct lives through the call.
    let lowered =
        unsafe { libc::prlimit(gateway.pid() as i32, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) };
    assert_eq!(lowered, 0);

    let crowd = Part::open(gateway.addr(), 5, 1_000_000, 400);
    let counts = crowd.counts();
    assert_eq!(counts.otherwise, 0, "nobody is left without a word: {counts:?}");
    assert!((50..ROOM as usize).contains(&counts.served), "{counts:?}");
    send_and_get(&mut early, &mut friend, 2, b"meanwhile");
    gateway.wait_until("the refused are counted", |gateway| {
        metric(gateway, "ringway_closes_total", "reason=\"Overloaded\"") == counts.told as u64
    });
    let without_descriptor = metric(&gateway, "ringway_shed_total", "what=\"descriptors\"");
    let on_the_way = metric(&gateway, "ringway_handovers_refused_total", "");
    assert_eq!(without_descriptor + on_the_way, counts.told as u64);
    crowd.end();
    let addr = gateway.addr();
    gateway.wait_until("somebody gets in again", |_| log_in(addr, 3, 1, None).is_ok());
}

/// As many descriptors as the kernel lets this process have.
pub(crate) fn raise_own_limit() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}
