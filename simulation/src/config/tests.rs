//! Every wrong file gets one sentence that says where and what to do.

use super::*;

const GOOD: &str = r#"
run = "run.toml"
clients = 12
seed = 7
baselines = ["local", "pooled"]

[data]
source = { path = "all.csv" }
test_share = 0.2
partition = "dirichlet"
alpha = 0.5

[devices]
speed = { median = 200, sigma = 0.5 }
stragglers = { share = 0.1, slowdown = 8 }
dropout = 0.05
availability = { share = 0.8, online = "2h" }

[network]
latency_ms = { min = 5, max = 80 }
up_mbit = 4
"#;

fn message(text: &str) -> String {
    Simulation::parse("sim.toml", text).unwrap_err().to_string()
}

#[test]
fn a_file_means_what_it_says_and_the_rest_has_defaults() {
    let simulation = Simulation::parse("sim.toml", GOOD).unwrap();
    assert_eq!((simulation.clients.get(), simulation.seed, simulation.workers), (12, 7, None));
    assert_eq!(simulation.network.latency_ms, Measure::Uniform { min: 5.0, max: 80.0 });
    assert_eq!(simulation.network.down_mbit, Measure::Fixed(50.0));
    assert_eq!(simulation.devices.speed, Measure::LogNormal { median: 200.0, sigma: 0.5 });
    let data = simulation.data.as_ref().unwrap();
    assert_eq!((&data.partition, &data.test), (&Partition::Dirichlet { alpha: 0.5 }, &Test::Share(0.2)));
    assert_eq!(simulation.name(0).unwrap().as_str(), "client-01");
    assert_eq!(simulation.name(11).unwrap().as_str(), "client-12");
}

#[test]
fn what_is_wrong_is_located() {
    let with = |from: &str, to: &str| message(&GOOD.replace(from, to));
    for (from, to, expected) in [
        ("clients = 12", "clients = 0", "sim.toml:3: clients: must be from 1 to 1000000"),
        ("clients = 12", "clients = -1", "sim.toml:3: invalid value"),
        ("clients = 12", "client = 12", "sim.toml:3: unknown field `client`"),
        ("alpha = 0.5", "alpha = nan", "sim.toml:11: data.alpha: must be from 0.001"),
        ("alpha = 0.5", "", "data.alpha: is missing"),
        ("alpha = 0.5", "alpha = 1\nsigma = 1", "sim.toml:12: data.sigma: is of no use with this partition"),
        ("test_share = 0.2", "test_share = 1.0", "sim.toml:9: data.test_share: must be above 0 and below 1"),
        ("dropout = 0.05", "dropout = 1", "sim.toml:16: devices.dropout: must be from 0 to below 1"),
        ("sigma = 0.5 }", "sigma = 9 }", "sim.toml:14: devices.speed.sigma: must be from 0 to 5"),
        ("max = 80", "max = 1", "sim.toml:20: network.latency_ms.max: must be at least min, 5"),
        ("up_mbit = 4", "up_mbit = 0", "sim.toml:21: network.up_mbit: must be from 0.001"),
        ("up_mbit = 4", "up_mbit = inf", "sim.toml:21: network.up_mbit: must be from 0.001"),
        ("up_mbit = 4", "up_mbit = \"4\"", "write a number, { median"),
        ("\"2h\"", "\"soon\"", "sim.toml:17: devices.availability.online: `soon` is no time"),
        ("slowdown = 8", "slowdown = 0.5", "sim.toml:15: devices.stragglers.slowdown: must be from 1"),
        ("\"pooled\"]", "\"local\"]", "sim.toml:5: baselines.1: is listed twice"),
        ("all.csv", "all", "data.source.format: is missing"),
        ("seed = 7", "model = \"\"", "sim.toml:4: model: is empty; name the model's folder"),
        (
            "seed = 7",
            "transport = \"quic\"",
            "sim.toml:13: devices: is of no use with transport = \"quic\": clients are as fast",
        ),
        ("seed = 7", "transport = \"tcp\"", "unknown variant `tcp`, expected `memory` or `quic`"),
        ("seed = 7", "model = 7", "write the path of a folder or of a .gguf file, or { path = …, kind = … }"),
        (
            "seed = 7",
            "model = { path = \"m.pt\", kind = \"torchscript\" }",
            "sim.toml:4: model.kind: `torchscript` is none that is simulated: use resnet18",
        ),
        ("\"dirichlet\"", "\"fair\"", "unknown variant `fair`"),
    ] {
        let said = with(from, to);
        assert!(said.contains(expected), "{said}\nwhere {expected} was expected");
    }
}

#[test]
fn over_quic_there_is_nothing_to_simulate_of_devices_and_lines() {
    let with = |more: &str| format!("run = \"run.toml\"\ntransport = \"quic\"\n{more}");
    let simulation = Simulation::parse("sim.toml", &with("clients = 250")).unwrap();
    assert_eq!(simulation.transport, Transport::Quic);
    let said = message(&with("clients = 251"));
    assert!(said.starts_with("sim.toml:3: clients: must be at most 250 with transport"), "{said}");
    let said = message(&with("clients = 2\n[network]\nup_mbit = 4"));
    assert!(said.starts_with("sim.toml:4: network: is of no use with transport"), "{said}");
}

#[test]
fn several_workers_may_share_a_gpu() {
    let text = GOOD.replace("seed = 7", "device = \"cuda:0\"\nworkers = 4");
    let simulation = Simulation::parse("sim.toml", &text).unwrap();
    assert_eq!((simulation.device, simulation.num_workers().get()), (DeviceChoice::Cuda(0), 4));
    let said = message(&GOOD.replace("seed = 7", "device = \"gpu\""));
    assert!(
        said.starts_with("sim.toml:4: there is no device \"gpu\": write \"auto\", \"cpu\" or \"cuda:N\""),
        "{said}"
    );
}

const RUN: &str = r#"
name = "toy"
rounds = 2
secure_aggregation = "off"
model = { architecture = "softmax" }
[task]
type = "tabular-classification"
dataset = "data"
label = "y"
labels = ["no", "yes"]
features = [{ column = "x", type = "numeric" }]
"#;

#[test]
fn a_simulation_is_checked_against_its_run_before_anything_begins() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let load = || Setting::load(&folder.path().join("sim.toml")).map(|_| ()).unwrap_err().to_string();
    write("sim.toml", GOOD);
    assert!(
        load().contains("all.csv does not exist; a relative path starts at this file's folder"),
        "{}",
        load()
    );
    write("all.csv", "x,y\n1,no\n");
    assert!(load().contains("run.toml cannot be read"));
    write("run.toml", RUN);
    assert!(Setting::load(&folder.path().join("sim.toml")).is_ok());
    write("run.toml", &format!("{RUN}[cohort]\nmin_sites = 13\n"));
    assert!(load().contains("sim.toml:3: clients: the run waits for 13 clients"), "{}", load());
    let over_quic = GOOD.split("[devices]").next().unwrap();
    write("sim.toml", &over_quic.replace("seed = 7", "transport = \"quic\""));
    write("run.toml", &format!("{RUN}[cohort]\nmin_sites = 11\n"));
    assert!(load().contains("sim.toml:4: transport: over QUIC a round begins as soon as 11"), "{}", load());
    assert!(load().contains("have min_sites = 12 there"), "{}", load());
    write("run.toml", &format!("{RUN}[cohort]\nmin_sites = 12\n"));
    assert!(Setting::load(&folder.path().join("sim.toml")).is_ok());
    write("sim.toml", GOOD);
    write("run.toml", &RUN.replace("{ architecture = \"softmax\" }", "{ name = \"minilm\" }"));
    assert!(
        load().contains("model: is missing: the run starts from the imported model `minilm`"),
        "{}",
        load()
    );
    let with_model = |model: &str| write("sim.toml", &GOOD.replace("seed = 7", &format!("model = {model}")));
    with_model("\"minilm\"");
    assert!(
        load().contains("minilm does not exist; a relative path starts at this file's folder"),
        "{}",
        load()
    );
    write("net.pth", "");
    with_model("\"net.pth\"");
    assert!(
        load().contains("net.pth is a file of weights alone: write { path = …, kind = … }"),
        "{}",
        load()
    );
    fs::create_dir(folder.path().join("minilm")).unwrap();
    with_model("{ path = \"minilm\", kind = \"vit\" }");
    assert!(load().contains("sim.toml:4: model.kind: "), "{}", load());
    assert!(load().contains("minilm says itself what it is: leave the kind out"), "{}", load());
    with_model("\"minilm\"");
    assert!(Setting::load(&folder.path().join("sim.toml")).is_ok());
    let local = RUN
        .replace("{ architecture = \"softmax\" }", "{ name = \"resnet\", batch_norm = \"local\" }")
        .replace("tabular-classification", "image-classification")
        .replace("features = [{ column = \"x\", type = \"numeric\" }]", "image = \"x\"");
    write("run.toml", &local);
    assert!(load().contains("sim.toml:5: baselines: have one model for all"), "{}", load());
    write("run.toml", RUN);
    assert!(
        load().contains("sim.toml:4: model: is of no use: the run's model starts from its seed"),
        "{}",
        load()
    );
    write("sim.toml", &GOOD.replace("test_share = 0.2", ""));
    assert!(load().contains("baselines: are compared on a common test set"), "{}", load());
    // No machine has so many.
    let on_gpu = GOOD.replace("seed = 7", "device = \"cuda:4000\"");
    write("sim.toml", &on_gpu);
    assert!(Setting::load(&folder.path().join("sim.toml")).is_ok(), "this model needs no device");
    write("run.toml", &RUN.replace("architecture = \"softmax\"", "architecture = \"mlp\""));
    assert!(load().contains("sim.toml:4: device: "), "{}", load());
    write("run.toml", RUN);
    write("sim.toml", "run = \"run.toml\"\nclients = 3\n");
    assert!(load().contains("data: is missing"), "{}", load());
}
