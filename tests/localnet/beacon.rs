//! The beacon on the real chain: what drand has signed verifies with wasmd's own cryptography, and nothing else does.

use client::{Account, Call, Client, ClientError, TxOutcome, Wallet};
use fxn_tests::{deployer::Deployer, localnet::Localnet};
use schema::{
    randomness::{ExecuteMsg, InstantiateMsg, QueryMsg},
    BeaconKey, BeaconSignature, Event, Round, Schedule,
};

use crate::deploy::artifacts;

const QUICKNET: &str = "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d1064510d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a";
const ROUND_1000: &str =
    "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39";
/// An empty call takes 113 thousand; a pairing must not make it dear.
const GAS_MAX: u64 = 300_000;

async fn make(account: &Account, code_id: u64, public_key: BeaconKey) -> Result<String, ClientError> {
    let msg = InstantiateMsg {
        public_key,
        schedule: Schedule {
            genesis_seconds: 1_692_803_367,
            period_seconds: 3,
        },
        rounds_kept: 100_000_000,
    };
    let call = Call::Instantiate {
        code_id,
        msg: serde_json::to_vec(&msg).unwrap(),
        label: "quicknet".to_owned(),
        admin: None,
    };
    let made = account.execute(&[call]).await?.into_result()?;
    Ok(made.attribute("instantiate", "_contract_address").unwrap().to_owned())
}

async fn post(
    account: &Account,
    beacon: &str,
    round: u64,
    signature: BeaconSignature,
) -> Result<TxOutcome, ClientError> {
    let call = Call::execute(beacon, &ExecuteMsg::PostRound { round, signature })?;
    account.execute(&[call]).await?.into_result()
}

async fn known(client: &Client, beacon: &str) -> Option<Round> {
    client.query(beacon, &QueryMsg::Latest {}).await.unwrap()
}

#[test]
fn a_real_round_of_quicknet_verifies_on_wasmd_and_nothing_else_does() {
    let net = Localnet::start(1);
    let deployer = Deployer::named("faucet");
    deployer.deploys(&net.rpc(0), &artifacts(), &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = deployer.client().await;
        let ours = client.contracts().randomness_beacon.clone().unwrap();
        let code_id = client.contract_info(&ours).await.unwrap().code_id;
        let account = Account::new(client.clone(), Wallet::dev("relayer"));
        let mut identity = [0; 96];
        identity[0] = 0xc0;
        for key in [identity, [0x77; 96], [0xff; 96]] {
            let refused = make(&account, code_id, BeaconKey(key)).await.unwrap_err().to_string();
            assert!(refused.contains("no point of G2, or its identity"), "{refused}");
        }
        let beacon = make(&account, code_id, QUICKNET.parse().unwrap()).await.unwrap();
        let signature: BeaconSignature = ROUND_1000.parse().unwrap();
        let mut broken = signature;
        broken.0[47] ^= 1;
        for (round, signature) in [
            (1_001, signature),
            (1_000, broken),
            (1_000, BeaconSignature([0xff; 48])),
        ] {
            let refused = post(&account, &beacon, round, signature).await.unwrap_err().to_string();
            assert!(refused.contains("is none of this key over round"), "{refused}");
        }
        assert_eq!(known(&client, &beacon).await, None);
        let posted = post(&account, &beacon, 1_000, signature).await.unwrap();
        println!("PostRound: {} gas", posted.gas_used);
        assert!(posted.gas_used < GAS_MAX, "{} gas", posted.gas_used);
        let randomness = "fe290beca10872ef2fb164d2aa4442de4566183ec51c56ff3cd603d930e54fdd"
            .parse()
            .unwrap();
        assert_eq!(
            known(&client, &beacon).await,
            Some(Round {
                round: 1_000,
                randomness
            })
        );
        let again = post(&account, &beacon, 1_000, signature).await.unwrap();
        let told = again.decoded(std::slice::from_ref(&beacon)).unwrap();
        assert_eq!(told[0].event, Event::RoundKnown { round: 1_000 });
    });
}
