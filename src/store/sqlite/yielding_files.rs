//! SQLite's usual files, except that the store's thread yields to deliveries before each page that it writes.
//!
//! Copying the log into the file is 60,000 pages in one call of the library, and a commit a thousand; between two
//! pages the store's thread may sleep ([`yield_to_deliveries`]). What always holds: everything else about a file is SQLite's
//! own, which this only passes on; a file is changed right after it was opened, before anybody else knows it.

use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use rusqlite::ffi::{
    SQLITE_ERROR, SQLITE_OK, sqlite3_file, sqlite3_filename, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs,
    sqlite3_vfs_find, sqlite3_vfs_register,
};

use crate::store::yielding::yield_to_deliveries;

/// What to open a database with.
pub(super) const FILES: &CStr = c"ringway";

type Write = unsafe extern "C" fn(*mut sqlite3_file, *const c_void, c_int, sqlite3_int64) -> c_int;

/// A file's methods, with the writing of its own kind behind them. The methods come first: SQLite sees only these.
#[repr(C)]
struct YieldingFile {
    methods: sqlite3_io_methods,
    write: Write,
}

/// The usual files, and whether the yielding ones were registered.
struct Usual(*mut sqlite3_vfs);

// SAFETY: SQLite's own, made before main and never changed or freed; its functions may be called from any thread.
unsafe impl Send for Usual {}
// SAFETY: as above.
unsafe impl Sync for Usual {}

static USUAL: OnceLock<Option<Usual>> = OnceLock::new();

/// Makes [`FILES`] known to SQLite, once in a process. `false`: this SQLite has no files of its own to begin with.
pub(super) fn register() -> bool {
    USUAL.get_or_init(begin).is_some()
}

fn begin() -> Option<Usual> {
    // SAFETY: null asks for the default.
    let usual = unsafe { sqlite3_vfs_find(ptr::null()) };
    if usual.is_null() {
        return None;
    }
    // SAFETY: not null, so it points to a whole sqlite3_vfs, which is plain data.
    let mut files = unsafe { *usual };
    files.pNext = ptr::null_mut();
    files.zName = FILES.as_ptr();
    files.xOpen = Some(open);
    // SQLite keeps the pointer as long as the process lives.
    let files = Box::leak(Box::new(files));
    // SAFETY: `files` lives for ever and is touched by nobody else; 0: it does not become the default.
    match unsafe { sqlite3_vfs_register(files, 0) } {
        SQLITE_OK => Some(Usual(usual)),
        _ => None,
    }
}

/// Opens as the usual files do, and puts the yielding writing in.
unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let Some(Usual(usual)) = USUAL.get().and_then(Option::as_ref) else { return SQLITE_ERROR };
    // SAFETY: it lives for ever.
    let Some(open) = (unsafe { &**usual }).xOpen else { return SQLITE_ERROR };
    // SAFETY: SQLite's own arguments, given on to the function they are for.
    let opened = unsafe { open(*usual, name, file, flags, flags_out) };
    // SAFETY: SQLite hands a file with room for the usual kind's, which `open` has filled in, whether it failed or not.
    let methods = unsafe { &mut (*file).pMethods };
    // SAFETY: null, or a table of SQLite's that lives for ever.
    let Some(usual) = (unsafe { methods.as_ref() }) else { return opened };
    if let (SQLITE_OK, Some(write)) = (opened, usual.xWrite) {
        // Some 150 bytes for each file ever opened, which is two for a store.
        let yielding = Box::leak(Box::new(YieldingFile { methods: *usual, write }));
        yielding.methods.xWrite = Some(write_yielding);
        *methods = &raw const yielding.methods;
    }
    opened
}

unsafe extern "C" fn write_yielding(
    file: *mut sqlite3_file,
    from: *const c_void,
    bytes: c_int,
    at: sqlite3_int64,
) -> c_int {
    yield_to_deliveries();
    // SAFETY: only `open` puts this function in, in a table that is the beginning of a `YieldingFile`.
    let yielding = unsafe { &*(*file).pMethods.cast::<YieldingFile>() };
    // SAFETY: SQLite's own arguments, given on to the function they are for.
    unsafe { (yielding.write)(file, from, bytes, at) }
}
