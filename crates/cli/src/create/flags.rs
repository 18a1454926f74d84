//! The flags of `run` and `create`.

use super::{devices, env, mounts, network, resources};
use crate::flags::Flag;
use crate::flags::values::{check_decimal, check_size, check_uint, check_uint16};

/// What runs and how: command, environment, terminal, health, lifetime.
pub(crate) const PROCESS: &[Flag] = &[
    Flag::list("annotation", "Annotation passed on to the OCI runtime, KEY=VALUE").word("map"),
    Flag::list("attach", "Attach only these of STDIN, STDOUT and STDERR")
        .short('a')
        .check(env::check_stream),
    Flag::text("cidfile", "Write the container's id into this new file"),
    Flag::text("domainname", "NIS domain name of the container"),
    Flag::text("entrypoint", "Program to run instead of the image's entrypoint"),
    Flag::list("env", "Set a variable, KEY=VALUE, or pass one on, KEY")
        .short('e')
        .check(env::check_variable),
    Flag::list("env-file", "Read variables from this file"),
    Flag::list("group-add", "Give the process this further group"),
    Flag::text("health-cmd", "Command that tells whether the container is well"),
    Flag::duration("health-interval", "Time between two checks"),
    Flag::int("health-retries", "Failed checks in a row that make it unhealthy"),
    Flag::duration("health-start-interval", "Time between two checks during the start period"),
    Flag::duration("health-start-period", "Time to get ready in which failed checks don't count"),
    Flag::duration("health-timeout", "Time one check may take"),
    Flag::text("hostname", "Host name of the container").short('h'),
    Flag::switch("init", "Run a small init that forwards signals and reaps processes"),
    Flag::switch("interactive", "Keep STDIN open, attached or not").short('i'),
    Flag::text("isolation", "Isolation technology (default is the only one on Linux)"),
    Flag::list("label", "Label of the container, KEY=VALUE").short('l'),
    Flag::list("label-file", "Read labels from this file"),
    Flag::text("log-driver", "Where the output goes: json-file, local, none"),
    Flag::list("log-opt", "Option of the log driver, KEY=VALUE"),
    Flag::text("name", "Name of the container"),
    Flag::switch("no-healthcheck", "Switch the image's health check off"),
    Flag::text("platform", "Platform of the image, such as linux/amd64"),
    Flag::text("pull", "When to pull the image: always, missing or never"),
    Flag::switch("quiet", "Don't show the progress of a pull").short('q'),
    Flag::text("restart", "When to start it again: no, on-failure[:MAX], always, unless-stopped"),
    Flag::switch("rm", "Remove the container and its anonymous volumes when it ends"),
    Flag::text("runtime", "OCI runtime to use"),
    Flag::text("stop-signal", "Signal that asks the container to end"),
    Flag::int("stop-timeout", "Seconds from the stop signal to SIGKILL"),
    Flag::switch("tty", "Give the process a terminal").short('t'),
    Flag::text("user", "User and group, NAME|UID[:GROUP|GID]").short('u'),
    Flag::text("workdir", "Working directory in the container").short('w'),
    Flag::switch(
        "disable-content-trust",
        "Accepted for compatibility; images are never checked for signatures",
    ),
];

/// Mounts and the root file system.
pub(crate) const STORAGE: &[Flag] = &[
    Flag::list("mount", "Add a mount, type=bind|volume|tmpfs|image,src=…,dst=…")
        .word("mount")
        .check(mounts::check_mount),
    Flag::switch("read-only", "Make the root file system read-only"),
    Flag::list("storage-opt", "Option of the storage, KEY=VALUE"),
    Flag::list("tmpfs", "Mount memory at this path, PATH[:OPTIONS]"),
    Flag::switch("use-api-socket", "Give the container the daemon's socket"),
    Flag::list("volume", "Mount a host path or a volume, [SOURCE:]TARGET[:OPTIONS]").short('v'),
    Flag::text("volume-driver", "Driver for volumes that are made now"),
    Flag::list("volumes-from", "Take over the mounts of this container, CONTAINER[:ro]"),
];

/// Networks, names and ports.
pub(crate) const NETWORK: &[Flag] = &[
    Flag::list("add-host", "Add a line to /etc/hosts, NAME:ADDRESS").check(network::check_host),
    Flag::list("dns", "Name server to use").check(network::check_address),
    Flag::list("dns-option", "Option for resolv.conf"),
    Flag::list("dns-opt", "").same_as("dns-option"),
    Flag::list("dns-search", "Search domain to use"),
    Flag::list("expose", "Port the container serves, PORT[-PORT][/PROTOCOL]"),
    Flag::text("ip", "IPv4 address on the network"),
    Flag::text("ip6", "IPv6 address on the network"),
    Flag::list("link", "Link to another container, CONTAINER[:ALIAS]"),
    Flag::list("link-local-ip", "Further link-local address"),
    Flag::text("mac-address", "MAC address"),
    Flag::list(
        "network",
        "Network to join: a name, host, none, container:NAME, or name=…,alias=…,ip=…",
    )
    .word("network"),
    Flag::list("net", "").same_as("network"),
    Flag::list("network-alias", "Further name on the network"),
    Flag::list("net-alias", "").same_as("network-alias"),
    Flag::list("publish", "Publish a port, [[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]").short('p'),
    Flag::switch("publish-all", "Publish every exposed port on a free port of the host").short('P'),
];

/// Privilege, namespaces and devices.
pub(crate) const SECURITY: &[Flag] = &[
    Flag::list("cap-add", "Add this capability"),
    Flag::list("cap-drop", "Take this capability away"),
    Flag::text("cgroupns", "cgroup namespace: private or host"),
    Flag::list("device", "Give a device of the host, SOURCE[:TARGET[:rwm]]"),
    Flag::list("device-cgroup-rule", "Rule for the device cgroup, such as 'c 10:200 rwm'"),
    Flag::list("gpus", "GPUs to give: all, a number, or device=…")
        .word("gpu-request")
        .check(devices::check_gpus),
    Flag::text("ipc", "IPC namespace: private, shareable, none, host or container:NAME"),
    Flag::text("pid", "PID namespace: host or container:NAME"),
    Flag::switch("privileged", "Give all capabilities and devices"),
    Flag::list("security-opt", "no-new-privileges, seccomp=…, apparmor=…, systempaths=unconfined"),
    Flag::map("sysctl", "Kernel parameter, KEY=VALUE").check(resources::check_sysctl),
    Flag::text("userns", "User namespace: host, or the container's own"),
    Flag::text("uts", "UTS namespace: host, or the container's own"),
];

/// Limits that `update` can change too.
pub(crate) const CHANGEABLE: &[Flag] = &[
    Flag::text("blkio-weight", "Share of block I/O, 10 to 1000, 0 for none")
        .word("uint16")
        .check(check_uint16),
    Flag::int("cpu-period", "Period of the CPU quota, in microseconds"),
    Flag::int("cpu-quota", "CPU time in each period, in microseconds"),
    Flag::int("cpu-rt-period", "Period of real-time CPU, in microseconds"),
    Flag::int("cpu-rt-runtime", "Real-time CPU in each period, in microseconds"),
    Flag::int("cpu-shares", "Share of CPU time, 1024 is one").short('c'),
    Flag::text("cpus", "Number of CPUs, such as 1.5").word("decimal").check(check_decimal),
    Flag::text("cpuset-cpus", "CPUs to run on, such as 0-2,4"),
    Flag::text("cpuset-mems", "Memory nodes to use, such as 0,1"),
    Flag::bytes("memory", "Memory limit").short('m'),
    Flag::bytes("memory-reservation", "Memory to keep under pressure"),
    Flag::bytes("memory-swap", "Limit of memory and swap together, -1 for no limit"),
    Flag::int("pids-limit", "Most processes and threads, -1 for no limit"),
];

/// Limits for as long as the container exists.
pub(crate) const LIMITS: &[Flag] = &[
    Flag::list("blkio-weight-device", "Share of block I/O on one device, PATH:WEIGHT")
        .check(resources::check_weight_device),
    Flag::text("cgroup-parent", "Parent cgroup"),
    Flag::int("cpu-count", "Windows only").hide(),
    Flag::int("cpu-percent", "Windows only").hide(),
    Flag::list("device-read-bps", "Bytes a second read from a device, PATH:SIZE")
        .check(resources::check_bps_device),
    Flag::list("device-read-iops", "Reads a second from a device, PATH:NUMBER")
        .check(resources::check_iops_device),
    Flag::list("device-write-bps", "Bytes a second written to a device, PATH:SIZE")
        .check(resources::check_bps_device),
    Flag::list("device-write-iops", "Writes a second to a device, PATH:NUMBER")
        .check(resources::check_iops_device),
    Flag::bytes("io-maxbandwidth", "Windows only").hide(),
    Flag::text("io-maxiops", "Windows only").check(check_uint).hide(),
    Flag::bytes("kernel-memory", "Accepted for compatibility; the kernel no longer has this limit"),
    Flag::int("memory-swappiness", "Readiness to swap, 0 to 100"),
    Flag::switch("oom-kill-disable", "Don't kill when memory runs out"),
    Flag::int(
        "oom-score-adj",
        "How soon to be killed when the host's memory runs out, -1000 to 1000",
    ),
    Flag::bytes("shm-size", "Size of /dev/shm").check(check_size),
    Flag::list("ulimit", "Limit of one resource, NAME=SOFT[:HARD]")
        .word("ulimit")
        .check(resources::check_ulimit),
];
