//! The demo's web server: a page from a file, and what a container can see.
//!
//!   site serve [PORT]      GET / is the page, GET /facts what this process sees
//!   site write FILE TEXT   replaces a file (the image has no shell to do it)
//!   site health [PORT]     succeeds if the page is served
//!
//! One file, `std` only: it is compiled into a static program of its own and
//! is the only file of its image besides the page. Not here: anything that
//! capsa itself uses.
#![deny(warnings)]

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

const PAGE: &str = "/www/index.html";
const PORT: u16 = 80;
const REQUEST_BYTES_MAX: u64 = 16 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["serve"] => serve(PORT),
        ["serve", port] => parse_port(port).and_then(serve),
        ["write", file, text] => replace(file, text),
        ["health"] => health(PORT),
        ["health", port] => parse_port(port).and_then(health),
        _ => {
            eprintln!("usage: site serve [PORT] | site write FILE TEXT | site health [PORT]");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("site: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse_port(text: &str) -> io::Result<u16> {
    text.parse().map_err(|_| io::Error::other(format!("{text:?} is no port")))
}

fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    println!("serving {PAGE} on port {port}");
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            // A client that went away is not the server's trouble.
            let _ = answer(stream);
        });
    }
    Ok(())
}

fn answer(stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let path = read_request(&stream)?;
    let (status, kind, body) = match path.as_deref() {
        Some("/" | "/index.html") => match fs::read(PAGE) {
            Ok(page) => ("200 OK", "text/html; charset=utf-8", page),
            Err(error) => {
                ("500 Internal Server Error", "text/plain", format!("{PAGE}: {error}\n").into())
            }
        },
        Some("/facts") => ("200 OK", "application/json", facts().into()),
        Some(_) => ("404 Not Found", "text/plain", b"not found\n".to_vec()),
        None => ("405 Method Not Allowed", "text/plain", b"only GET\n".to_vec()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    (&stream).write_all(head.as_bytes())?;
    (&stream).write_all(&body)
}

/// Reads a request to the end of its head. The path of a GET, else None.
fn read_request(stream: &TcpStream) -> io::Result<Option<String>> {
    let mut lines = BufReader::new(stream.take(REQUEST_BYTES_MAX));
    let mut first = String::new();
    lines.read_line(&mut first)?;
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 && !line.trim().is_empty() {
        line.clear();
    }
    let mut words = first.split_whitespace();
    Ok(match (words.next(), words.next()) {
        (Some("GET"), Some(target)) => {
            Some(target.split('?').next().unwrap_or_default().to_owned())
        }
        _ => None,
    })
}

/// Replaces a file at once: a reader sees the old text or the new one.
fn replace(file: &str, text: &str) -> io::Result<()> {
    let next = format!("{file}.next");
    fs::write(&next, text)?;
    fs::rename(&next, file)
}

fn health(port: u16) -> io::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status)?;
    if status.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(io::Error::other(status)) }
}

/// What this process sees of its world, as one JSON object.
fn facts() -> String {
    let status = read("/proc/self/status");
    let mut out = String::from("{");
    text_field(&mut out, "hostname", read("/proc/sys/kernel/hostname").trim());
    text_field(&mut out, "pid", &std::process::id().to_string());
    text_field(&mut out, "uid", status_field(&status, "Uid:"));
    text_field(&mut out, "gid", status_field(&status, "Gid:"));
    text_field(&mut out, "capabilities", status_field(&status, "CapBnd:"));
    text_field(&mut out, "seccomp", status_field(&status, "Seccomp:"));
    text_field(&mut out, "uid_map", &one_line(&read("/proc/self/uid_map")));
    text_field(&mut out, "gid_map", &one_line(&read("/proc/self/gid_map")));
    text_field(&mut out, "memory_limit", &memory_limit());
    text_field(&mut out, "cpu_limit", &cpu_limit());
    list_field(&mut out, "processes", &processes());
    list_field(&mut out, "interfaces", &interfaces());
    out.pop();
    out.push_str("}\n");
    out
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The first value behind a label of /proc/PID/status.
fn status_field<'a>(status: &'a str, label: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(label));
    line.and_then(|line| line.split_whitespace().next()).unwrap_or("?")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The limit in bytes, from cgroup v2 or v1, or `unlimited`.
fn memory_limit() -> String {
    let text =
        read("/sys/fs/cgroup/memory.max") + &read("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    // v1 says "no limit" as the largest number of whole pages.
    match text.trim().parse::<u64>() {
        Ok(bytes) if bytes < i64::MAX as u64 / 2 => bytes.to_string(),
        _ => "unlimited".to_owned(),
    }
}

/// The quota in processors, from cgroup v2 or v1, or `unlimited`.
fn cpu_limit() -> String {
    let v1 = ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        .map(|file| read(&format!("/sys/fs/cgroup/cpu/{file}")));
    let text = read("/sys/fs/cgroup/cpu.max") + &v1.concat();
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(quota)), Some(Ok(period))) if quota > 0.0 => format!("{}", quota / period),
        _ => "unlimited".to_owned(),
    }
}

fn processes() -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut pids: Vec<u32> = pids.collect();
    pids.sort_unstable();
    pids.into_iter()
        .map(|pid| format!("{pid} {}", read(&format!("/proc/{pid}/comm")).trim()))
        .collect()
}

fn interfaces() -> Vec<String> {
    let text = read("/proc/net/dev");
    let names = text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    names.collect()
}

fn text_field(out: &mut String, name: &str, value: &str) {
    quoted(out, name);
    out.push(':');
    quoted(out, value);
    out.push(',');
}

fn list_field(out: &mut String, name: &str, values: &[String]) {
    quoted(out, name);
    out.push_str(":[");
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        quoted(out, value);
    }
    out.push_str("],");
}

fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if u32::from(c) < 0x20 => {
                // Writing to a String can't fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
