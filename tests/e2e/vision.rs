//! Models that take images, on a network of the test's own: published, served and paid like any other, and what cannot be sent is refused
//! before anything is spent.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use inference_host::{
    onnx::{find_library, OnnxRuntime},
    request::{decode_tensors, encode_tensors},
};
use partition::{row, run_stage, Bundle, DType, Row, Runtime, Tensor, TensorSpec};
use serde_json::Value;

use crate::{document, fxn, machine, refusal, root, Stage, PATIENCE};

const PAGES: &str = "demo/page-rotation";
const SQUEEZENET: &str = "demo/squeezenet";
/// As it comes with the package: for one image of full size, which no job can carry yet.
const LIGHT: &str = "demo/squeezenet-light";
const ENDPOINT: &str = "classify";

/// A process that ends with the test.
struct Service(Child);

impl Service {
    fn start(mut command: Command) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.spawn().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for something that another process does.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "{what} never happened");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A chain, a creator, a provider that serves everything, and a developer.
struct Town {
    home: tempfile::TempDir,
    services: Vec<Service>,
}

impl Town {
    fn new() -> Self {
        let Stage { home, is_real } = Stage::open();
        fs::write(home.path().join("passphrase"), "a passphrase of the test\n").unwrap();
        fs::set_permissions(home.path().join("passphrase"), fs::Permissions::from_mode(0o600)).unwrap();
        let mut town = Self { home, services: vec![] };
        if !is_real {
            let mut devnet = town.fxn(&["devnet", "--rpc", "127.0.0.1:0", "--block-time", "250ms"]);
            devnet.env("RUST_LOG", "off");
            town.services.push(Service::start(devnet));
        }
        until("the network", || town.at("network.json").is_file().then_some(()));
        for key in ["creator", "provider", "operator", "developer"] {
            town.run(&["keys", "new", key]);
            town.run(&["--key", key, "wallet", "faucet", "2000"]);
        }
        town.run(&["keys", "new", "host"]);
        town.run(&["--key", "developer", "wallet", "deposit", "1000"]);
        town
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }

    fn fxn(&self, arguments: &[&str]) -> Command {
        let mut command = fxn(self.home.path());
        command.arg("--passphrase-file").arg(self.at("passphrase"));
        command.args(["--yes", "--output", "json"]).args(arguments);
        command
    }

    /// The answer of a command that succeeds.
    fn run(&self, arguments: &[&str]) -> Value {
        document(&self.fxn(arguments).output().unwrap())
    }

    /// The sentence of a command that is refused.
    fn refused(&self, arguments: &[&str]) -> String {
        refusal(&self.fxn(arguments).output().unwrap())
    }

    /// The developer's order for rows of a model.
    fn submit<'a>(&self, model: &'a str, files: &'a [String]) -> Vec<&'a str> {
        let order = [
            "--key",
            "developer",
            "job",
            "submit",
            "--model",
            model,
            "--endpoint",
            ENDPOINT,
        ];
        let inputs = files.iter().flat_map(|file| ["--input", file]);
        order.into_iter().chain(inputs).collect()
    }

    fn available(&self) -> u64 {
        self.run(&["--key", "developer", "wallet", "money"])["available"]
            .as_u64()
            .unwrap()
    }

    /// A bundle of a model of `scripts/models.sh`.
    fn split(&self, model: &str, stages: &str, name: &str, samples: &[&str]) -> Bundle {
        self.split_folder(&root().join(".runtime/models").join(model), stages, name, samples)
    }

    fn split_folder(&self, source: &Path, stages: &str, name: &str, samples: &[&str]) -> Bundle {
        let source = source.display().to_string();
        let target = self.path(name);
        let mut arguments = vec![
            "model",
            "split",
            &source,
            &target,
            "--stages",
            stages,
            "--task",
            "classification",
        ];
        arguments.extend(samples);
        self.run(&arguments);
        Bundle::open(&self.at(name)).unwrap()
    }

    /// Publishes bundles and has them served by one provider. What it registers first is only where it will be.
    fn serve(&mut self, models: &[(&str, &str)]) {
        for (model, bundle) in models {
            let bundle = self.path(bundle);
            let publish = ["--key", "creator", "model", "publish", &bundle, "--model", model];
            let terms = ["--endpoint", ENDPOINT, "--unit", "image", "--royalty-bps", "1000"];
            self.run(&[&publish[..], &terms].concat());
        }
        self.register("http://127.0.0.1:1");
        self.run(&["--key", "provider", "provider", "bond", "1000"]);
        let last = "0..1";
        for (model, _) in models {
            let deploy = [
                "--key", "provider", "provider", "deploy", "--model", model, "--stages", last,
            ];
            let terms = ["--ask", "per_1k_in=0.2,per_request=0.001", "--slots", "4"];
            let sla = ["--sla", "base=30,rate=1,units=64,penalty=1000"];
            self.run(&[&deploy[..], &terms, &sla].concat());
        }
        // The owner's key is needed nowhere from here on.
        let owner = self.address("provider");
        let mut run = self.fxn(&["--key", "operator", "provider", "run", "--provider", &owner]);
        run.args([
            "--host-key-name",
            "host",
            "--listen",
            "127.0.0.1:0",
            "--status",
            "127.0.0.1:0",
            "--relayer-status",
            "127.0.0.1:0",
        ]);
        for (_, bundle) in models {
            run.args(["--source", &self.path(bundle)]);
        }
        self.services.push(Service::start(run));
        let host: Value = until("the host", || {
            serde_json::from_slice(&fs::read(self.at("host.json")).ok()?).ok()
        });
        self.register(&format!("http://{}", host["listen"].as_str().unwrap()));
        let status = host["status"].as_str().unwrap();
        let ready = "\"state\":\"ready\"";
        until("all deployments being served", || {
            let page = get(status, "/status")?.replace(": ", ":");
            (page.matches(ready).count() == models.len()).then_some(())
        });
    }

    fn register(&self, endpoint: &str) {
        let name = ["--name", "box", "--endpoint", endpoint, "--host-key-name", "host"];
        let operator = ["--operator", &self.address("operator")];
        self.run(&[&["--key", "provider", "provider", "register"][..], &name, &operator].concat());
    }

    fn address(&self, key: &str) -> String {
        self.run(&["keys", "show", key])["address"].as_str().unwrap().to_owned()
    }

    /// Submits a job and waits for its result.
    fn carried_out(&self, model: &str, files: &[String]) -> (String, Value) {
        let job = self.run(&self.submit(model, files))["job"].to_string();
        let shown = self.run(&["job", "watch", &job]);
        assert_eq!(shown["status"], "completed", "{shown}");
        let result = self.run(&["--key", "developer", "job", "result", &job, "--out", &self.path(&job)]);
        (job, result)
    }
}

/// A page of a service's status, if it answers.
fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// The whole graph, run here, one row at a time.
fn unsplit(bundle: &Bundle, rows: &[Vec<u8>]) -> Vec<Row> {
    let runtime = OnnxRuntime::load(&find_library(None).unwrap()).unwrap();
    let (stage, inputs) = (bundle.stage(0).unwrap(), &bundle.manifest().inputs);
    let mut loaded = runtime.load(&bundle.verify_stage(0).unwrap()).unwrap();
    let run = |bytes: &Vec<u8>| {
        let row = decode_tensors(bytes, inputs, 1).unwrap();
        run_stage(stage, loaded.as_mut(), &[row], 1).unwrap().remove(0)
    };
    rows.iter().map(run).collect()
}

/// What `--out` wrote.
fn written(folder: &Path, rows: usize, bundle: &Bundle) -> Vec<Row> {
    let read = |number| {
        let bytes = fs::read(folder.join(format!("row-{number}.safetensors"))).unwrap();
        decode_tensors(&bytes, &bundle.manifest().outputs, 1).unwrap()
    };
    (1..=rows).map(read).collect()
}

/// Rows by their canonical bytes: equal if and only if every bit is.
fn bits(rows: &[Row]) -> Vec<Vec<u8>> {
    rows.iter().map(|row| row::encode(row).unwrap()).collect()
}

fn scores(answer: &Value) -> Vec<f64> {
    serde_json::from_value(answer["scores"]["values"].clone()).unwrap()
}

fn pages() -> Vec<String> {
    let folder = root().join("tests/fixtures/pages");
    let page = |turned| folder.join(format!("page-{turned}.safetensors")).display().to_string();
    ["000", "090", "180", "270"].map(page).to_vec()
}

fn light_model() -> PathBuf {
    let places = fs::read_dir(root().join(".runtime/venv/lib")).unwrap();
    let file = |place: fs::DirEntry| {
        place
            .path()
            .join("site-packages/onnx/backend/test/data/light/light_squeezenet.onnx")
    };
    let mut found = places.map(|place| file(place.unwrap())).filter(|path| path.is_file());
    found.next().expect("run scripts/models.sh first")
}

#[test]
fn vision_models_are_published_and_served_like_any_other() {
    let _machine = machine();
    let mut town = Town::new();
    let folder = root().join("tests/fixtures/pages").display().to_string();
    town.split("page-rotation", "2", "pages", &["--samples", &folder]);
    town.split("squeezenet", "2", "squeezenet", &[]);
    fs::create_dir(town.at("light")).unwrap();
    fs::copy(light_model(), town.at("light").join("model.onnx")).unwrap();
    town.split_folder(&town.at("light"), "2", "squeezenet-light", &[]);
    a_bundle_without_tokenizer_is_not_published_for_texts(&town);
    town.serve(&[
        (PAGES, "pages"),
        (SQUEEZENET, "squeezenet"),
        (LIGHT, "squeezenet-light"),
    ]);
    pages_are_read_and_the_answer_has_the_bits_of_the_unsplit_graph(&town);
    a_model_of_the_backend_tests_answers_pictures(&town);
    what_cannot_be_sent_is_refused_and_costs_nothing(&town);
}

fn a_bundle_without_tokenizer_is_not_published_for_texts(town: &Town) {
    let bundle = town.path("pages");
    let said = town.refused(&["--key", "creator", "model", "publish", &bundle, "--model", PAGES]);
    assert!(
        said.contains("endpoint embeddings takes texts, and the bundle has no tokenizer"),
        "{said}"
    );
}

fn pages_are_read_and_the_answer_has_the_bits_of_the_unsplit_graph(town: &Town) {
    let (job, result) = town.carried_out(PAGES, &pages());
    let rows = result["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["scores"]["shape"]), (4, &serde_json::json!([4])));
    for (turned, row) in rows.iter().enumerate() {
        assert!(scores(row)[turned] > 0.9, "page {turned}: {row}");
    }
    let whole = town.split("page-rotation", "1", "whole-pages", &[]);
    let sent: Vec<Vec<u8>> = pages().iter().map(|page| fs::read(page).unwrap()).collect();
    let expected = unsplit(&whole, &sent);
    assert_eq!(bits(&written(&town.at(&job), 4, &whole)), bits(&expected));
    let floats: Vec<f64> = expected[0][0].to_f32().unwrap().into_iter().map(f64::from).collect();
    assert!(scores(&rows[0])
        .iter()
        .zip(&floats)
        .all(|(told, true_one)| (told - true_one).abs() < 1e-7));

    let mut text = town.fxn(&["--key", "developer", "job", "result", &job, "--output", "text"]);
    let said = String::from_utf8(text.output().unwrap().stdout).unwrap();
    assert!(
        said.contains("4 rows, verified against the chain") && said.contains("270 degrees 0.9"),
        "{said}"
    );
    let again = town.refused(&["--key", "developer", "job", "result", &job, "--out", &town.path(&job)]);
    assert!(
        again.contains("row-1.safetensors is there already; nothing was written"),
        "{again}"
    );
}

/// The light model has random weights, so only the bits say whether it was served well.
fn a_model_of_the_backend_tests_answers_pictures(town: &Town) {
    let spec = [TensorSpec::new("image", DType::Uint8, vec![])];
    let pictures = town.at("pictures");
    fs::create_dir(&pictures).unwrap();
    let picture = |kind: usize| {
        let pixel = |at: usize| (at * (kind + 1) + at / 48 * 7) as u8;
        let image = Tensor::new(DType::Uint8, vec![3, 48, 48], (0..3 * 48 * 48).map(pixel).collect()).unwrap();
        let bytes = encode_tensors(&[image], &spec).unwrap();
        fs::write(pictures.join(format!("{kind}.safetensors")), &bytes).unwrap();
        bytes
    };
    let sent: Vec<Vec<u8>> = (0..3).map(picture).collect();
    let (job, result) = town.carried_out(SQUEEZENET, &[town.path("pictures")]);
    let answers: Vec<Vec<f64>> = result["rows"].as_array().unwrap().iter().map(scores).collect();
    assert!(answers[0] != answers[1] && answers[1] != answers[2]);
    let whole = town.split("squeezenet", "1", "whole-squeezenet", &[]);
    assert_eq!(bits(&written(&town.at(&job), 3, &whole)), bits(&unsplit(&whole, &sent)));
}

fn what_cannot_be_sent_is_refused_and_costs_nothing(town: &Town) {
    let before = town.available();
    let write = |name: &str, tensors: &[(&str, Tensor)]| {
        let specs: Vec<_> = tensors
            .iter()
            .map(|(name, tensor)| TensorSpec::new(name, tensor.dtype, vec![]))
            .collect();
        let row: Row = tensors.iter().map(|(_, tensor)| tensor.clone()).collect();
        fs::write(town.at(name), encode_tensors(&row, &specs).unwrap()).unwrap();
        vec![town.path(name)]
    };
    let bytes = |shape: &[u64]| {
        let length = shape.iter().product::<u64>() as usize;
        Tensor::new(DType::Uint8, shape.to_vec(), vec![0; length]).unwrap()
    };
    let cases = [
        (
            write("a.safetensors", &[("page", bytes(&[1, 80, 80]))]),
            "has no batch axis: [80, 80] expected",
        ),
        (
            write("b.safetensors", &[("page", bytes(&[40, 40]))]),
            "tensor page has shape [40, 40], [80, 80] expected",
        ),
        (
            write("c.safetensors", &[("image", bytes(&[80, 80]))]),
            "tensor image is no input of the model",
        ),
        (
            write(
                "d.safetensors",
                &[("page", Tensor::from_f32(vec![4, 4], &[0.0; 16]).unwrap())],
            ),
            "tensor page has element type F32, U8 expected",
        ),
        (
            vec![town.path("passphrase")],
            "passphrase is no row for this model: it is not safetensors: its first 8 bytes",
        ),
        (vec![town.path("nowhere.safetensors")], "failed to read"),
    ];
    for (files, reason) in cases {
        let said = town.refused(&town.submit(PAGES, &files));
        assert!(said.contains(reason), "{said}");
    }
    let photo = Tensor::from_f32(vec![3, 224, 224], &vec![0.0; 3 * 224 * 224]).unwrap();
    let said = town.refused(&town.submit(LIGHT, &write("photo.safetensors", &[("data_0", photo)])));
    assert!(
        said.contains("photo.safetensors has 602192 bytes, at most 8192 can ride in a job; nothing was spent"),
        "{said}"
    );
    let page = &pages()[0];
    let order = ["--key", "developer", "job", "submit", "--model", PAGES, "--input", page];
    let said = town.refused(&order);
    assert!(
        said.ends_with("demo/page-rotation has no endpoint \"embeddings\": it has classify"),
        "{said}"
    );
    let text = town.path("passphrase");
    let texts = [
        "--key",
        "developer",
        "embed",
        "--model",
        PAGES,
        "--endpoint",
        ENDPOINT,
        &text,
    ];
    let said = town.refused(&texts);
    assert!(said.contains("endpoint classify takes tensors, not texts"), "{said}");
    assert_eq!(town.available(), before);
}
