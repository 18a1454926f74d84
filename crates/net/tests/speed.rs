//! Prices: printed, and bounded where a bound holds on any machine.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod world;

use std::time::{Duration, Instant};

use capsa_net::Protocol::Tcp;
use capsa_net::{Net, PortMap, dns};
use world::{Container, Namespace, World, bridge, plan, port};

const PORTS: u16 = 1000;
const SAMPLES: usize = 50;

fn timed(step: impl FnOnce()) -> Duration {
    let start = Instant::now();
    step();
    start.elapsed()
}

fn median(samples: &mut [Duration]) -> Duration {
    samples.sort();
    samples[samples.len() / 2]
}

fn report(what: &str, samples: &mut [Duration]) {
    let median = median(samples);
    eprintln!(
        "{what}: min {:?}, median {median:?}, max {:?}",
        samples[0],
        samples[samples.len() - 1]
    );
}

#[test]
fn the_thousandth_port_costs_what_the_first_does() {
    let world = World::new();
    let net = world.open("speed0");
    let spec = bridge("cbr1", 1);
    world.host.run(|| net.ensure_bridge(&spec).unwrap());
    let web = world.container(&net, &spec, 2);
    let batch = |first: u16| -> Vec<PortMap> {
        (first..first + SAMPLES as u16).map(|number| port(Tcp, None, number, &web)).collect()
    };
    let publish = |net: &Net, ports: &[PortMap]| {
        let one = |port| timed(|| net.publish(std::slice::from_ref(port)).unwrap());
        ports.iter().map(one).collect::<Vec<_>>()
    };
    world.host.run(|| {
        let mut first = publish(&net, &batch(1000));
        for start in (1000 + SAMPLES as u16..1000 + PORTS).step_by(SAMPLES) {
            net.publish(&batch(start)).unwrap();
        }
        let mut last = publish(&net, &batch(1000 + PORTS));
        report("publish, empty table", &mut first);
        report("publish, 1,000 published", &mut last);
        let ratio = median(&mut last).as_secs_f64() / median(&mut first).as_secs_f64();
        assert!(ratio < 5.0, "the 1,000th port costs {ratio:.1} times the first");
        let one = batch(1000);
        let mut removed: Vec<_> = one
            .iter()
            .map(|port| timed(|| net.unpublish(std::slice::from_ref(port)).unwrap()))
            .collect();
        report("unpublish", &mut removed);
        let published = net.published().unwrap();
        assert_eq!(published.len(), usize::from(PORTS));
        let wanted = capsa_net::Wanted {
            bridges: std::slice::from_ref(&spec),
            endpoints: &[&web.id],
            ports: &published,
        };
        eprintln!("reconcile 1,000 ports: {:?}", timed(|| drop(net.reconcile(&wanted).unwrap())));
    });
}

#[test]
fn attaching_is_quick() {
    let world = World::new();
    let net = world.open("speed1");
    let spec = bridge("cbr1", 1);
    let made = world.host.run(|| timed(|| net.ensure_bridge(&spec).unwrap()));
    eprintln!("ensure_bridge: {made:?}");
    let containers: Vec<_> = (0..SAMPLES)
        .map(|number| Container {
            ns: Namespace::new(),
            id: format!("{number:011}"),
            ip: std::net::Ipv4Addr::new(172, 30, 1, 2 + number as u8),
        })
        .collect();
    let attach = |container: &Container| {
        world.host.run(|| timed(|| net.attach(&plan(container, &spec)).unwrap()))
    };
    let mut attached: Vec<_> = containers.iter().map(attach).collect();
    report("attach", &mut attached);
    let mut bound: Vec<_> = containers
        .iter()
        .map(|container| timed(|| drop(dns::bind_in(container.ns.fd()).unwrap())))
        .collect();
    report("bind name server", &mut bound);
    let mut behind: Vec<_> = containers
        .iter()
        .map(|container| timed(|| drop(dns::bind_behind(container.ns.fd()).unwrap())))
        .collect();
    report("bind name server behind rules", &mut behind);
    let removed = world.host.run(|| timed(|| net.teardown().unwrap()));
    eprintln!("teardown of {SAMPLES}: {removed:?}");
    // Generous: an `ip` command for the same takes ten times as long.
    assert!(median(&mut attached) < Duration::from_millis(20));
}
