//! Strikes, jail and the way back; exposure that rolls; links that failed.

use provider_staking::ContractError;
use schema::{staking::*, Event};

use crate::network::{
    events, item, profile, terms, Network, Outcome, AUDIT_WINDOW, FAULT_WINDOW, JAIL, RESERVE, SLOT_BOND,
};

impl Network {
    fn misses(&mut self, deployment: u64) -> Outcome {
        self.occupies(&[deployment]).unwrap();
        self.vacates(&[deployment], Some((deployment, 0)))
    }

    /// Ann misses three times at once.
    fn jails_ann(&mut self) -> u64 {
        for _ in 0..3 {
            self.misses(1).unwrap();
        }
        self.now() + JAIL
    }

    fn unjails(&mut self, sender: &str, provider: &str) -> Outcome {
        let provider = self.who(provider).into();
        self.execute(sender, &ExecuteMsg::Unjail { provider })
    }

    fn settles(&mut self, deployment: u64, price: u128) {
        self.occupies(&[deployment]).unwrap();
        let price = price.into();
        self.ends(&[deployment], Ended::Settled { price }).unwrap();
    }

    fn records(&mut self, deployment: u64, price: u128) -> Outcome {
        let price = price.into();
        self.by_escrow(&ExecuteMsg::RecordSettled {
            work: vec![SettledWork { deployment, price }],
        })
    }
}

#[test]
fn three_misses_inside_the_window_jail_and_the_provider_comes_back_by_its_own_hand() {
    let mut network = Network::with_ann(9_000);
    network.deploys("ann", terms(0, 2, 2)).unwrap();
    let ann = network.who("ann").to_string();
    network.misses(1).unwrap();
    network.passes(59);
    network.misses(1).unwrap();
    network.passes(1);
    assert_eq!(network.provider("ann").strikes.len(), 1, "the first is 60 seconds old");
    network.misses(1).unwrap();
    assert_eq!(network.provider("ann").jailed_until, None);
    let done = network.misses(1).unwrap();
    let until = network.now() + JAIL;
    let struck = Event::ProviderStruck {
        provider: ann.clone(),
        deployment: 1,
        item: item(),
        strikes: 3,
    };
    let jailed = Event::ProviderJailed {
        provider: ann.clone(),
        until,
    };
    assert_eq!(events(&done)[1..], [struck, jailed]);
    assert_eq!(network.provider("ann").jailed_until, Some(until));

    assert_eq!(network.draw(0), None, "no new item");
    let refused = ContractError::InJail { deployment: 1, until };
    assert_eq!(network.occupies(&[1]).unwrap_err(), refused);
    assert_eq!(network.reserves(&[1]).unwrap_err(), refused, "no new session");

    network.passes(JAIL - 1);
    let now = network.now();
    let early = ContractError::StillJailed { until, now };
    assert_eq!(network.unjails("ann", "ann").unwrap_err(), early);
    network.passes(1);
    assert_eq!(network.draw(0), None, "it asks to come back");
    let done = network.unjails("ann", "ann").unwrap();
    let by = ann.clone();
    assert_eq!(events(&done), [Event::ProviderUnjailed { provider: ann, by }]);
    assert!(network.draw(0).is_some());
    network.reserves(&[1]).unwrap();
    assert_eq!(network.unjails("ann", "ann").unwrap_err(), ContractError::NotJailed);
    network.misses(1).unwrap();
    assert_eq!(network.provider("ann").strikes.len(), 1, "a new beginning");
    network.check_money();
}

#[test]
fn the_owner_or_its_operator_ends_the_time_in_jail_and_nobody_else() {
    let mut network = Network::with_ann(9_000);
    network.joins("bob", 2_000);
    network.deploys("ann", terms(0, 2, 1)).unwrap();
    let operated = Profile {
        operator: Some(network.who("oscar").into()),
        ..profile("ann")
    };
    let update = ExecuteMsg::UpdateProvider { profile: operated };
    network.execute("ann", &update).unwrap();
    network.jails_ann();
    network.passes(JAIL);
    for sender in ["bob", "adam", "orchestrator", "dev"] {
        let refused = ContractError::NotProvider {
            sender: network.who(sender).into(),
            provider: network.who("ann").into(),
        };
        assert_eq!(network.unjails(sender, "ann").unwrap_err(), refused);
    }
    let account = network.who("cat").to_string();
    assert_eq!(
        network.unjails("cat", "cat").unwrap_err(),
        ContractError::NotRegistered { account }
    );
    network.unjails("oscar", "ann").unwrap();
    assert!(network.draw(0).is_some());
}

#[test]
fn whoever_comes_back_has_exactly_what_was_not_drained() {
    let mut network = Network::with_ann(20_000);
    for stage in 0..3 {
        network.deploys("ann", terms(stage, stage, 2)).unwrap();
    }
    network.deploys("ann", terms(0, 2, 1)).unwrap();
    network.occupies(&[1]).unwrap();
    network.jails_ann();
    network.execute("ann", &ExecuteMsg::Drain { deployment: 4 }).unwrap();
    network.deploys("ann", terms(1, 2, 1)).unwrap();
    assert_eq!(network.draw(0), None, "nor is what is listed in jail");
    network.passes(JAIL);
    network.unjails("ann", "ann").unwrap();
    let chains: std::collections::BTreeSet<Vec<u64>> = (0..100)
        .map(|seed| network.draw(seed).unwrap())
        .map(|chain| chain.spans.iter().map(|span| span.deployment).collect())
        .collect();
    assert_eq!(chains, [vec![1, 2, 3], vec![1, 5]].into());
}

#[test]
fn running_work_goes_on_in_jail_and_can_only_make_it_longer() {
    let mut network = Network::with_ann(9_000);
    network.deploys("ann", terms(0, 2, 4)).unwrap();
    network.occupies(&[1, 1, 1]).unwrap();
    network.reserves(&[1]).unwrap();
    for _ in 0..3 {
        network.vacates(&[1], Some((1, 0))).unwrap();
    }
    let until = network.now() + JAIL;
    assert_eq!(network.provider("ann").jailed_until, Some(until));
    network.records(1, 700).unwrap();
    assert_eq!(network.provider("ann").settled.u128(), 700, "its session is settled");
    network.frees(&[1]).unwrap();
    assert_eq!((network.deployment(1).busy, network.draw(0)), (0, None));
    network.check_money();
}

#[test]
fn a_jailed_provider_takes_all_that_is_its_own_out() {
    let mut network = Network::with_ann(5_000);
    network.deploys("ann", terms(0, 2, 2)).unwrap();
    let purse = network.balance("ann");
    network.jails_ann();
    let bond = network.provider("ann").bond.u128();
    network.unbonds("ann", bond - 2 * SLOT_BOND - RESERVE).unwrap();
    network.execute("ann", &ExecuteMsg::Drain { deployment: 1 }).unwrap();
    network.execute("ann", &ExecuteMsg::Remove { deployment: 1 }).unwrap();
    network.unbonds("ann", 2 * SLOT_BOND + RESERVE).unwrap();
    network.passes(crate::network::UNBONDING);
    network.withdraws("ann").unwrap();
    assert_eq!(network.balance("ann") - purse, bond, "without ever coming back");
    assert_eq!(network.provider("ann").bond.u128(), 0);
    network.check_money();
}

#[test]
fn a_bond_that_is_full_takes_no_new_work_until_the_buckets_roll() {
    let mut network = Network::with_ann(2_000);
    network.deploys("ann", terms(0, 2, 2)).unwrap();
    let begun = network.now();
    network.settles(1, 600);
    network.passes(AUDIT_WINDOW - 1);
    network.settles(1, 401);
    let found = network.provider("ann");
    assert_eq!((found.settled.u128(), found.backing.u128()), (1_001, 0));
    assert_eq!(
        network.draw(0),
        None,
        "1001 settled and 1000 for the slot are more than 2000"
    );
    let refused = ContractError::NoHeadroom {
        deployment: 1,
        required: (2_001 + RESERVE).into(),
        bond: (2_000 + RESERVE).into(),
    };
    assert_eq!(network.occupies(&[1]).unwrap_err(), refused);
    assert_eq!(network.reserves(&[1]).unwrap_err(), refused);
    // Both stand in one bucket, which counts for one window more.
    network.passes(begun + 2 * AUDIT_WINDOW - 1 - network.now());
    assert_eq!(network.draw(0), None);
    network.passes(1);
    assert!(network.draw(0).is_some(), "without anybody's call");
    network.occupies(&[1, 1]).unwrap();
    assert_eq!(network.provider("ann").settled.u128(), 0);
}

#[test]
fn more_bond_makes_room_at_once_and_less_is_not_to_be_had() {
    let mut network = Network::with_ann(3_000);
    network.deploys("ann", terms(0, 2, 1)).unwrap();
    network.settles(1, 900);
    network.records(1, 1_200).unwrap();
    assert_eq!(network.draw(0), None);
    let free = |free: u128| ContractError::BondCommitted {
        free: free.into(),
        requested: (free + 1).into(),
    };
    assert_eq!(network.unbonds("ann", 901).unwrap_err(), free(900));
    network.bonds("ann", 100).unwrap();
    assert!(network.draw(0).is_some());
    // What was settled stays until it is forgotten, whatever is removed.
    network.execute("ann", &ExecuteMsg::Remove { deployment: 1 }).unwrap();
    assert_eq!(network.unbonds("ann", 1_001).unwrap_err(), free(1_000));
    network.passes(2 * AUDIT_WINDOW);
    assert_eq!(network.provider("ann").free.u128(), 3_100 + RESERVE);
    network.unbonds("ann", 3_100 + RESERVE).unwrap();
}

#[test]
fn what_is_recorded_never_fails_and_only_siblings_record() {
    let mut network = Network::with_ann(3_000);
    network.deploys("ann", terms(0, 2, 1)).unwrap();
    let work = |deployment: u64, count: usize| ExecuteMsg::RecordSettled {
        work: vec![
            SettledWork {
                deployment,
                price: u128::MAX.into(),
            };
            count
        ],
    };
    for sender in ["ann", "adam", "dev"] {
        let refused = ContractError::NotSibling {
            sender: network.who(sender).into(),
        };
        assert_eq!(network.refusal(sender, &work(1, 1)), refused);
    }
    network.by_escrow(&work(77, 1)).unwrap();
    assert_eq!(network.provider("ann").settled.u128(), 0);
    let crowd = ContractError::TooManyNamed { count: 33, max: 32 };
    assert_eq!(network.by_escrow(&work(1, 33)).unwrap_err(), crowd);
    network.execute("orchestrator", &work(1, 32)).unwrap();
    assert_eq!(network.provider("ann").settled.u128(), u128::MAX, "no sum overflows");
    assert_eq!(network.draw(0), None);
    network.passes(2 * AUDIT_WINDOW);
    assert!(network.draw(0).is_some());
}

#[test]
fn a_link_fault_costs_nothing_strikes_nobody_and_parts_the_two_for_a_while() {
    let mut network = Network::with_ann(9_000);
    network.joins("bob", 9_000);
    network.deploys("ann", terms(0, 0, 2)).unwrap();
    network.deploys("bob", terms(1, 2, 2)).unwrap();
    network.occupies(&[1, 2]).unwrap();
    let bonds = |network: &Network| ["ann", "bob"].map(|name| network.provider(name).bond.u128());
    let before = bonds(&network);
    let (sender, receiver) = (1, 2);
    let ended = Ended::LinkFault { sender, receiver };
    let done = network.ends(&[1, 2], ended.clone()).unwrap();
    assert_eq!((events(&done).len(), bonds(&network)), (0, before));
    assert!(network.provider("ann").strikes.is_empty() && network.provider("bob").strikes.is_empty());
    assert_eq!([1, 2].map(|number| network.deployment(number).link_faults), [1, 1]);
    assert_eq!(network.draw(0), None, "there is no other pair");
    network.joins("cat", 9_000);
    network.deploys("cat", terms(0, 0, 1)).unwrap();
    assert_eq!(network.draw(0).unwrap().spans[0].deployment, 3);
    network.execute("cat", &ExecuteMsg::Drain { deployment: 3 }).unwrap();
    network.passes(FAULT_WINDOW - 1);
    assert_eq!(network.draw(0), None);
    network.passes(1);
    assert!(network.draw(0).is_some(), "they may try again");
    network.occupies(&[1, 2]).unwrap();
    network.ends(&[1, 2], ended).unwrap();
    assert_eq!(network.deployment(1).link_faults, 2, "the last one still counts");
    network.passes(2 * FAULT_WINDOW);
    assert_eq!(network.deployment(1).link_faults, 0);
}

#[test]
fn whoever_failed_a_link_is_drawn_less_often() {
    let mut network = Network::with_ann(9_000);
    network.joins("bob", 9_000);
    for name in ["ann", "bob"] {
        network.deploys(name, terms(0, 2, 2)).unwrap();
    }
    for _ in 0..3 {
        network.occupies(&[1]).unwrap();
        let (sender, receiver) = (1, 9);
        network.ends(&[1], Ended::LinkFault { sender, receiver }).unwrap();
    }
    let share = |network: &Network| {
        let drawn = (0..=255).map(|seed| network.draw(seed).unwrap().spans[0].deployment);
        drawn.filter(|deployment| *deployment == 1).count()
    };
    let (low, later) = (share(&network), {
        network.passes(2 * FAULT_WINDOW);
        share(&network)
    });
    // One in five of 256, and one in two: the seeds are fixed.
    assert!((32..72).contains(&low) && (104..152).contains(&later), "{low}, {later}");
}
