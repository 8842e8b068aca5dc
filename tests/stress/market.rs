//! A market of real processes: the chain, a model server, and for each provider a host and a relayer with homes and keys of their own.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use client::{Account, Call, Client, Network, Wallet};
use cosmwasm_std::Uint128;
use fxn_tests::program::{clean, fxn};
use schema::{
    escrow,
    price::{Ask, RoyaltyRate},
    registry::{self, EndpointTerms, Metadata, Share, Task, Unit},
    staking::{self, DeploymentTerms, Profile, Sla},
    work::HostFile,
    Event, ModelId, PublicKey, BPS, UFUNC,
};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::{
    model::{Tiny, STAGES},
    processes::{eventually, page, Crew},
};

pub(crate) const MODEL: &str = "tiny/encoder";
pub(crate) const ENDPOINT: &str = "embeddings";
/// Gas coin of an account: more than any of them can use.
const GAS: u128 = 100_000_000_000;
const PASSPHRASE: &str = "a passphrase of a test";
/// In force in the local parameters.
const SLOT_BOND: u128 = 50 * UFUNC;

/// What a market looks like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) block_time: &'static str,
    /// Providers, dealt out over the stages one after the other.
    pub(crate) providers: usize,
    /// The last this many providers of the middle stage can lie.
    pub(crate) liars: usize,
    pub(crate) slots: u16,
    /// Further settings of hosts, `FXN_HOST_...`.
    pub(crate) host_settings: &'static [(&'static str, &'static str)],
}

pub(crate) struct Provider {
    pub(crate) owner: Account,
    pub(crate) stage: u8,
    pub(crate) home: PathBuf,
    pub(crate) deployment: u64,
    pub(crate) can_lie: bool,
    /// Private addresses of its services.
    pub(crate) host: String,
    pub(crate) relayer: String,
    host_key: Wallet,
    relayer_key: Wallet,
}

pub(crate) struct Market {
    // First: processes end before their folder does.
    pub(crate) crew: Crew,
    pub(crate) client: Client,
    pub(crate) tiny: Tiny,
    pub(crate) providers: Vec<Provider>,
    pub(crate) creator: Account,
    pub(crate) model: ModelId,
    faucet: Account,
    folder: TempDir,
}

/// A host's commitment: so long that no machine is ever too slow for it. Who is slow is not what is tested here.
fn sla() -> Sla {
    Sla {
        base_seconds: 300,
        seconds_per_1k_units: 1,
        units_max: 4_096,
        penalty_bps: 5_000,
    }
}

/// Every provider asks something else.
fn ask(number: usize) -> Ask {
    let number = u128::try_from(number).unwrap();
    Ask {
        per_1k_in: Uint128::new(200_000 + 7_001 * number),
        per_1k_out: Uint128::zero(),
        per_request: Uint128::new(501 + 13 * number),
    }
}

impl Market {
    /// Starts everything and waits until it serves.
    pub(crate) async fn open(plan: Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tiny = Tiny::split(folder.path());
        let mut crew = Crew::default();
        let client = start_chain(&mut crew, &folder.path().join("devnet"), plan.block_time).await;
        start_beacon(&mut crew, &folder.path().join("beacon"));
        let faucet = Account::new(client.clone(), Wallet::dev("faucet"));
        let creator = Account::new(client.clone(), Wallet::random());
        let providers = (0..plan.providers).map(|number| {
            let stage = u8::try_from(number % usize::from(STAGES)).unwrap();
            let later = (number + 1..plan.providers)
                .filter(|other| other % usize::from(STAGES) == 1)
                .count();
            Provider {
                owner: Account::new(client.clone(), Wallet::random()),
                stage,
                home: folder.path().join(format!("provider-{number}")),
                deployment: 0,
                can_lie: stage == 1 && later < plan.liars,
                host: String::new(),
                relayer: String::new(),
                host_key: Wallet::random(),
                relayer_key: Wallet::random(),
            }
        });
        let mut market = Self {
            providers: providers.collect(),
            model: MODEL.parse().unwrap(),
            crew,
            client,
            tiny,
            creator,
            faucet,
            folder,
        };
        market.fund(&[market.creator.address().to_owned()]).await;
        let owners: Vec<String> = market
            .providers
            .iter()
            .map(|it| it.owner.address().to_owned())
            .collect();
        market.fund(&owners).await;
        market.publish().await;
        market.start_providers(plan).await;
        market
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn prefix(&self) -> &str {
        &self.client.network().bech32_prefix
    }

    /// Gives accounts gas and 100 000 FUNC each.
    async fn fund(&self, addresses: &[String]) {
        let token = &self.client.contracts().func_token;
        let calls = addresses.iter().flat_map(|to| {
            let func = Call::cw20_transfer(token, to, 100_000 * UFUNC).unwrap();
            [Call::send(to, GAS), func]
        });
        self.faucet.execute(&calls.collect::<Vec<_>>()).await.unwrap();
    }

    /// A developer with money in the escrow.
    pub(crate) async fn developer(&self, deposit: u128) -> Account {
        let account = Account::new(self.client.clone(), Wallet::random());
        self.fund(&[account.address().to_owned()]).await;
        let contracts = self.client.contracts();
        let message = escrow::ReceiveMsg::Deposit { beneficiary: None };
        let call = Call::cw20_send(&contracts.func_token, &contracts.royalty_escrow, deposit, &message);
        account.execute(&[call.unwrap()]).await.unwrap();
        account
    }

    async fn publish(&self) {
        let contracts = self.client.contracts();
        let config = self.client.registry().config().await.unwrap();
        let namespace = registry::ReceiveMsg::ClaimNamespace {
            namespace: self.model.namespace(),
        };
        let fee = config.params.namespace_fee.u128();
        let payout = vec![Share {
            address: self.creator.address().to_owned(),
            bps: BPS,
        }];
        let model = self.model.clone();
        let messages = [
            registry::ExecuteMsg::PublishModel {
                model: model.clone(),
                metadata: metadata(),
                payout,
                parents: vec![],
            },
            registry::ExecuteMsg::PublishVersion {
                model: model.clone(),
                version: self.tiny.version.clone(),
            },
            registry::ExecuteMsg::SetEndpoint {
                model,
                endpoint: ENDPOINT.to_owned(),
                terms: terms(),
            },
        ];
        let claim = Call::cw20_send(&contracts.func_token, &contracts.model_registry, fee, &namespace);
        let mut calls = vec![claim.unwrap()];
        calls.extend(
            messages
                .iter()
                .map(|message| Call::execute(&contracts.model_registry, message).unwrap()),
        );
        self.creator.execute(&calls).await.unwrap();
    }

    async fn start_providers(&mut self, plan: Plan) {
        let bundle = self.tiny.bundle.display().to_string();
        for provider in &self.providers {
            fs::create_dir(&provider.home).unwrap();
            self.client.network().save(&provider.home.join("network.json")).unwrap();
        }
        import_keys(&self.providers);
        for (number, provider) in self.providers.iter().enumerate() {
            let (command, stdin) = provider.host_command(&bundle, plan.host_settings);
            self.crew
                .start(&format!("{number}/host"), &provider.home, command, &stdin);
        }
        let calls: Vec<Call> = self
            .providers
            .iter()
            .map(|provider| Call::send(provider.relayer_key.address(self.prefix()), GAS))
            .collect();
        self.faucet.execute(&calls).await.unwrap();
        for number in 0..self.providers.len() {
            let file: HostFile = read_eventually(&self.providers[number].home.join("host.json")).await;
            let deployment = self.enlist(number, &file.listen, plan.slots).await;
            let provider = &mut self.providers[number];
            (provider.deployment, provider.host) = (deployment, file.status);
            let mut command = fxn(&provider.home);
            command.args(["relayer", "--key", "relayer", "--relayer-status", "127.0.0.1:0"]);
            command.args(["--provider", provider.owner.address()]);
            command.env("FXN_PASSPHRASE", PASSPHRASE);
            self.crew
                .start(&format!("{number}/relayer"), &provider.home, command, "");
        }
        for provider in &mut self.providers {
            let file: relayer::RelayerFile = read_eventually(&provider.home.join("relayer.json")).await;
            provider.relayer = file.status;
            for (role, address) in [("host", &provider.host), ("relayer", &provider.relayer)] {
                eventually(&format!("{role} is ready"), async || page(address, "/ready").await).await;
            }
        }
        self.crew.assert_alive();
    }

    /// Registers, bonds and lists.
    async fn enlist(&self, number: usize, listen: &str, slots: u16) -> u64 {
        let provider = &self.providers[number];
        let contracts = self.client.contracts();
        let config = self.client.staking().config().await.unwrap();
        let profile = Profile {
            name: format!("provider-{number}"),
            endpoint: format!("http://{listen}"),
            host_key: PublicKey(provider.host_key.public_key()),
            operator: None,
            hardware: String::new(),
        };
        let terms = DeploymentTerms {
            model: self.model.clone(),
            version: 1,
            first: provider.stage,
            last: provider.stage,
            engine_class: self.tiny.class.clone(),
            ask: ask(number),
            reservation_per_hour: 100_000u128.into(),
            slots,
            sla: sla(),
        };
        let send = |amount, message: &staking::ReceiveMsg| {
            Call::cw20_send(&contracts.func_token, &contracts.provider_staking, amount, message).unwrap()
        };
        let register = staking::ExecuteMsg::RegisterProvider { profile };
        let calls = [
            Call::execute(&contracts.provider_staking, &register).unwrap(),
            send(u128::from(slots) * SLOT_BOND, &staking::ReceiveMsg::Bond {}),
            send(config.params.listing_fee.u128(), &staking::ReceiveMsg::Deploy { terms }),
        ];
        let outcome = provider.owner.execute(&calls).await.unwrap();
        let mut events = outcome
            .events
            .iter()
            .filter_map(|event| Event::from_wasm(event).unwrap());
        let listed = events.find_map(|event| match event {
            Event::DeploymentListed { deployment, .. } => Some(deployment),
            _ => None,
        });
        listed.unwrap()
    }

    /// Everything that answers `/metrics`, or could: a name and an address.
    pub(crate) fn services(&self) -> Vec<(&'static str, String)> {
        let beacon = self.told("beacon", "answers at http://");
        let mut services = vec![("devnet", self.told("devnet", "Metrics: http://")), ("beacon", beacon)];
        for provider in &self.providers {
            services.push(("host", provider.host.clone()));
            services.push(("relayer", provider.relayer.clone()));
        }
        services
    }
}

impl Market {
    /// An address out of what a service said at its start.
    fn told(&self, service: &str, before: &str) -> String {
        let said = fs::read_to_string(self.folder().join(format!("{service}/{service}.log"))).unwrap();
        let (_, rest) = said.split_once(before).unwrap();
        rest.split(['/', '\n'])
            .next()
            .unwrap()
            .trim_end_matches(". Ctrl-C stops it.")
            .to_owned()
    }
}

impl Provider {
    /// From now on its host flips this bit.
    pub(crate) fn lies(&self, bit: u8) {
        assert!(self.can_lie);
        fs::write(self.home.join("lie"), bit.to_string()).unwrap();
    }

    pub(crate) fn host_public_key(&self) -> [u8; 33] {
        self.host_key.public_key()
    }

    fn host_command(&self, bundle: &str, settings: &[(&str, &str)]) -> (Command, String) {
        let address = self.owner.address();
        if self.can_lie {
            let mut command = clean(Command::new(env!("CARGO_BIN_EXE_lying-host")));
            command.arg(&self.home).args([address, bundle]);
            return (command, format!("{}\n", hex::encode(*self.host_key.secret())));
        }
        let mut command = fxn(&self.home);
        command.args(["host", "--key", "host", "--provider", address, "--source", bundle]);
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--status",
            "127.0.0.1:0",
            "--threads",
            "1",
            "--allow-private-peers",
        ]);
        command
            .env("FXN_PASSPHRASE", PASSPHRASE)
            .env("FXN_HOST_REFRESH_SECONDS", "1");
        command.envs(settings.iter().copied());
        (command, String::new())
    }
}

/// The embedded chain signs rounds itself; this is the service that other networks have for it.
fn start_beacon(crew: &mut Crew, home: &Path) {
    fs::create_dir(home).unwrap();
    let mut command = fxn(home);
    command.args(["beacon", "--development", "--listen", "127.0.0.1:0"]);
    crew.start("beacon", home, command, "");
}

async fn start_chain(crew: &mut Crew, home: &Path, block_time: &str) -> Client {
    fs::create_dir(home).unwrap();
    let mut command = fxn(home);
    command.args(["devnet", "--rpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
    command.args(["--block-time", block_time]);
    crew.start("devnet", home, command, "");
    let path = home.join("network.json");
    let client = async || {
        let network = Network::load(&path).ok()?;
        Client::connect_with(network, Duration::from_secs(30)).await.ok()
    };
    eventually("the chain answers", client).await
}

/// Seals the keys of everybody, all at once: sealing takes time on purpose.
fn import_keys(providers: &[Provider]) {
    let imports = providers.iter().flat_map(|provider| {
        let relayer = ("relayer", &provider.relayer_key);
        let host = (!provider.can_lie).then_some(("host", &provider.host_key));
        host.into_iter()
            .chain([relayer])
            .map(|(name, key)| (provider.home.as_path(), name, key))
    });
    let started: Vec<_> = imports.map(|(home, name, key)| start_import(home, name, key)).collect();
    for child in started {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Puts a key into a home that a command can open with [`PASSPHRASE`].
pub(crate) fn import_key(home: &Path, name: &str, key: &Wallet) {
    assert!(start_import(home, name, key)
        .wait_with_output()
        .unwrap()
        .status
        .success());
}

fn start_import(home: &Path, name: &str, key: &Wallet) -> std::process::Child {
    let mut command = fxn(home);
    command
        .args(["keys", "import", name, "--hex"])
        .env("FXN_PASSPHRASE", PASSPHRASE);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let secret = hex::encode(*key.secret());
    child.stdin.take().unwrap().write_all(secret.as_bytes()).unwrap();
    child
}

/// `fxn` with the passphrase of the test.
pub(crate) fn fxn_with_keys(home: &Path) -> Command {
    let mut command = fxn(home);
    command.env("FXN_PASSPHRASE", PASSPHRASE);
    command
}

async fn read_eventually<T: DeserializeOwned>(path: &Path) -> T {
    let read = async || serde_json::from_slice(&fs::read(path).ok()?).ok();
    eventually(&format!("{} is there", path.display()), read).await
}

fn metadata() -> Metadata {
    Metadata {
        title: "Tiny".to_owned(),
        description: "Words to eight numbers.".to_owned(),
        task: Task::Embeddings,
        licence: "Apache-2.0".to_owned(),
        tags: vec![],
        homepage: None,
        card: None,
    }
}

fn terms() -> EndpointTerms {
    EndpointTerms {
        unit: Unit::Token,
        royalty: RoyaltyRate {
            royalty_bps: 1_250,
            royalty_per_1k_units: Uint128::new(50_003),
        },
    }
}
