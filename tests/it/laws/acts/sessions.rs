//! The lane off the chain: opened, topped up, settled, closed, left and finalised.

use cosmwasm_std::Binary;
use fxn_tests::{Host, Protocol, FUNC, MODEL, SESSION_KEY};
use schema::{
    escrow::{Consent, ExecuteMsg as Escrow, Gateway, NewAllocation},
    session::{CloseConsent, SignedVoucher, Voucher},
};

use super::{name_of, person, sender, Act, Msg};
use crate::laws::{
    dice::Dice,
    oracle::{Allotted, Opened},
    price::Count,
    world::{World, DEVELOPERS, GENERATOR},
};

/// Deployments that serve a model, the newest first.
fn serving(world: &World, model: &str) -> Vec<u64> {
    let listed = world.oracle.deployments.iter().rev();
    listed
        .filter(|(_, listed)| !listed.removed && listed.terms.model.as_str() == model)
        .map(|(number, _)| *number)
        .collect()
}

fn allocations(world: &World, dice: &mut Dice, model: &str) -> Vec<NewAllocation> {
    let known = serving(world, model);
    let mut chosen: Vec<(u64, u128)> = vec![];
    for _ in 0..=dice.roll(3) {
        let deployment = dice.maybe(&known).unwrap_or(1);
        let again = dice.rarely(20);
        if again || chosen.iter().all(|(number, _)| *number != deployment) {
            let usual = [FUNC, 200_000, 4 * FUNC][dice.roll(3)];
            let amount = if dice.rarely(4) { dice.around(50 * FUNC) } else { usual };
            chosen.push((if dice.rarely(20) { u64::MAX } else { deployment }, amount));
        }
    }
    Protocol::allocations(&chosen)
}

pub(super) fn open_session(world: &World, dice: &mut Dice) -> Act {
    let model = if dice.rarely(5) { GENERATOR } else { MODEL };
    let mut session = world.protocol.new_session(&[]);
    session.model = model.parse().unwrap();
    session.allocations = allocations(world, dice, model);
    let seconds = [600, 30, 3_600][dice.roll(3)];
    let lasting = if dice.rarely(6) { dice.near(seconds) } else { seconds };
    session.expires_at = world.clock().0 + lasting % (1 << 40);
    if dice.rarely(4) {
        let bps = [250, 1, 2_000, 2_001, 0][dice.roll(5)];
        let address = world.addr("gateway").into_string();
        session.gateway = Some(Gateway { address, bps });
    }
    match dice.roll(30) {
        28 => session.endpoint = "Not a name".to_owned(),
        29 => session.session_key.0[0] = 4,
        _ => {}
    }
    let name = *dice.pick(&DEVELOPERS);
    world.act(sender(dice, name), Msg::Escrow(Escrow::OpenSession { session }))
}

/// A session with what is known of it: mostly an open one.
fn session<'a>(world: &'a World, dice: &mut Dice) -> (u64, Option<&'a Opened>) {
    let all = &world.oracle.sessions;
    let open: Vec<u64> = all
        .iter()
        .rev()
        .filter(|(_, session)| session.open().count() > 0)
        .map(|(number, _)| *number)
        .collect();
    let any: Vec<u64> = all.keys().copied().collect();
    let known = if dice.rarely(12) {
        dice.maybe(&any)
    } else {
        dice.maybe(&open)
    };
    let number = known.unwrap_or(1);
    (number, all.get(&number))
}

fn owner(world: &World, session: Option<&Opened>) -> &'static str {
    session.map_or("dora", |session| {
        name_of(world, &cosmwasm_std::Addr::unchecked(&session.owner))
    })
}

pub(super) fn top_up(world: &World, dice: &mut Dice) -> Act {
    let (number, known) = session(world, dice);
    let model = known.map_or(MODEL, |known| known.model.as_str());
    let allocations = if dice.rarely(2) {
        allocations(world, dice, model)
    } else {
        let members: Vec<u64> = known.map_or_else(Vec::new, |known| known.parts.keys().copied().collect());
        let deployment = dice.maybe(&members).unwrap_or(1);
        let usual = [FUNC, 30 * FUNC, 1][dice.roll(3)];
        let amount = if dice.rarely(4) { dice.around(usual) } else { usual };
        Protocol::allocations(&[(deployment, amount)])
    };
    let session = number;
    let name = owner(world, known);
    world.act(sender(dice, name), Msg::Escrow(Escrow::TopUp { session, allocations }))
}

/// How a voucher is made up.
#[derive(Debug, Clone, Copy)]
enum Story {
    /// By an honest client, after the one that was settled last.
    Next,
    /// As a host holds it that knows nothing of what others have settled: its own count, priced in full.
    Held,
    /// A later one for next to nothing, so that the better ones would be too old.
    Cheap,
    /// Of another story about the work: fewer rows, longer ones, or other units.
    Other,
    /// The last of all sequences and counters that nobody can exceed.
    Last,
}

/// What a voucher says besides for whom.
type Said = (u64, Count, u128);

fn counted(rows: u64, units_in: u64, units_out: u64) -> Count {
    Count {
        rows,
        units_in,
        units_out,
    }
}

/// `price` is that of counted work, 0 where nothing is known of it.
fn story(dice: &mut Dice, part: Option<&Allotted>, price: impl Fn(Count) -> u128) -> Said {
    use Story::{Cheap, Held, Last, Next, Other};
    let (paid, most) = part.map_or((0, 0), |part| (part.paid.total(), part.amount));
    let (newest, last) = part.map_or((0, Count::default()), |part| (part.sequence, part.count));
    let rows = [1, 7, 100, 2_000][dice.roll(4)] as u64;
    let each = [10, 256, 1][dice.roll(3)];
    let after = newest.saturating_add(1 + dice.roll(3) as u64);
    match [Next, Next, Next, Held, Held, Cheap, Other, Last][dice.roll(8)] {
        Next => {
            let count = counted(last.rows + rows, last.units_in + rows * each, last.units_out);
            let whole = price(count);
            let amount = [whole.min(most), whole.min(most) / 2, whole, most][dice.roll(4)];
            (after, count, amount)
        }
        Held => {
            let count = counted(rows * 9, rows * 90, 0);
            (rows, count, price(count))
        }
        Cheap => (after, last, [1, paid + 1][dice.roll(2)]),
        Other => {
            let long = counted(rows, rows * 256, 0);
            let count = [long, counted(rows, 0, rows * each), counted(1, 1, 0)][dice.roll(3)];
            (after, count, (paid + 1).max(price(count).min(most) / 2))
        }
        Last => (
            u64::MAX,
            counted(1_000_000_000, 256_000_000_000, 0),
            paid + u128::from(rows),
        ),
    }
}

/// One voucher: mostly as an honest client would sign it, else as somebody would who has the session key and means ill.
fn voucher(world: &World, dice: &mut Dice) -> SignedVoucher {
    let (number, known) = session(world, dice);
    let members: Vec<u64> = known.map_or_else(Vec::new, |known| known.parts.keys().copied().collect());
    let deployment = dice.maybe(&members).unwrap_or(1);
    let known = known.filter(|known| known.parts.contains_key(&deployment));
    let part = known.and_then(|known| known.parts.get(&deployment));
    let price = |count| known.map_or(0, |known| world.oracle.session_price(known, deployment, count).total());
    let (sequence, count, amount) = story(dice, part, price);
    let mut voucher = Voucher {
        session: number,
        deployment,
        sequence,
        requests: count.rows,
        units_in: count.units_in,
        units_out: count.units_out,
        amount: dice.around(amount).into(),
    };
    // Counters that stay inside what the oracle can multiply.
    match dice.roll(16) {
        11 => voucher.requests += 1_000_000,
        12 => voucher.units_in = 0,
        13 => voucher.units_out += 5,
        14 => voucher.sequence = 0,
        15 => voucher.session += 1,
        _ => {}
    }
    signed(world, dice, voucher)
}

fn signed(world: &World, dice: &mut Dice, voucher: Voucher) -> SignedVoucher {
    let mut domain = world.protocol.escrow_domain();
    let mut told = voucher;
    let key = match dice.roll(14) {
        9 => "mallory",
        10 => "anna",
        11 => {
            domain.contract = world.oracle.contracts.job_orchestrator.to_string();
            SESSION_KEY
        }
        12 => {
            domain.chain_id.push('x');
            SESSION_KEY
        }
        13 => {
            told.deployment += 1;
            SESSION_KEY
        }
        _ => SESSION_KEY,
    };
    let mut signature = Host::named(key).sign(&told.digest(&domain));
    if dice.rarely(14) {
        signature = Host::twin(&signature);
    }
    SignedVoucher { voucher, signature }
}

pub(super) fn settle_vouchers(world: &World, dice: &mut Dice) -> Act {
    let count = [1, 2, 5, 32, 33, 0][dice.roll(6)];
    let mut vouchers: Vec<SignedVoucher> = vec![];
    for _ in 0..count {
        match vouchers.last() {
            // Once more, in the same message.
            Some(last) if dice.rarely(8) => vouchers.push(*last),
            _ => vouchers.push(voucher(world, dice)),
        }
    }
    world.act(person(dice), Msg::Escrow(Escrow::SettleVouchers { vouchers }))
}

pub(super) fn close_session(world: &World, dice: &mut Dice) -> Act {
    let (session, known) = session(world, dice);
    let mut consents: Vec<Consent> = vec![];
    for (deployment, part) in known.iter().flat_map(|known| &known.parts) {
        if !dice.rarely(3) {
            continue;
        }
        let consent = CloseConsent {
            session,
            deployment: *deployment,
            sequence: if dice.rarely(9) {
                part.sequence.wrapping_add(1)
            } else {
                part.sequence
            },
        };
        let host = if dice.rarely(9) {
            Host::named("mallory")
        } else {
            fxn_tests::host_of(&part.host_key)
        };
        let signature = host.sign(&consent.digest(&world.protocol.escrow_domain()));
        consents.push(Consent {
            deployment: *deployment,
            signature,
        });
    }
    let name = owner(world, known);
    world.act(
        sender(dice, name),
        Msg::Escrow(Escrow::CloseSession { session, consents }),
    )
}

pub(super) fn leave_session(world: &World, dice: &mut Dice) -> Act {
    let (session, known) = session(world, dice);
    let parts: Vec<(u64, String)> = known.map_or_else(Vec::new, |known| {
        let part = |(number, part): (&u64, &Allotted)| (*number, part.provider.clone());
        known.parts.iter().map(part).collect()
    });
    let (deployment, provider) = dice.maybe(&parts).unwrap_or((1, String::new()));
    let name = name_of(world, &cosmwasm_std::Addr::unchecked(provider));
    world.act(
        sender(dice, name),
        Msg::Escrow(Escrow::LeaveSession { session, deployment }),
    )
}

pub(super) fn finalise_session(world: &World, dice: &mut Dice) -> Act {
    let (session, _) = session(world, dice);
    world.act(person(dice), Msg::Escrow(Escrow::FinaliseSession { session }))
}

/// Deployments in the order of their stages, of one class: of a session, or of the market. Mostly all stages are there.
pub(super) fn chain(world: &World, dice: &mut Dice, session: Option<&Opened>) -> Vec<u64> {
    let members: Vec<u64> = match session {
        Some(session) => {
            let open = session.open().filter(|(_, part)| part.closes_at.is_none());
            open.map(|(number, _)| *number).collect()
        }
        None => serving(world, MODEL),
    };
    let terms = |number: &u64| &world.oracle.deployments[number].terms;
    let mut chain: Vec<u64> = vec![];
    loop {
        let next = chain.last().map_or(0, |last| terms(last).last + 1);
        let class = chain.first().map(|first| &terms(first).engine_class);
        let fits = |number: &&u64| {
            let own = terms(number);
            own.first == next && class.is_none_or(|class| own.engine_class == *class)
        };
        let fits: Vec<u64> = members.iter().filter(fits).copied().collect();
        let Some(chosen) = dice.maybe(&fits) else { break };
        chain.push(chosen);
    }
    match dice.roll(30) {
        27 => chain.reverse(),
        28 => chain.truncate(1),
        29 => chain.push(chain.first().copied().unwrap_or(77)),
        _ => {}
    }
    chain
}

/// One that can be forced, if there is one.
fn forcible<'a>(world: &'a World, dice: &mut Dice) -> Option<(u64, &'a Opened)> {
    let now = world.clock().0;
    let is_whole = |session: &Opened| {
        let firsts = session.open().filter(|(_, part)| part.closes_at.is_none());
        let stages = world.oracle.shares[&(session.model.clone(), session.version)].len();
        firsts.count() >= stages && now < session.expires_at && session.forced.is_none()
    };
    let all = world.oracle.sessions.iter();
    let whole: Vec<u64> = all
        .filter(|(_, found)| is_whole(found))
        .map(|(number, _)| *number)
        .collect();
    let number = dice.maybe(&whole)?;
    Some((number, &world.oracle.sessions[&number]))
}

/// A session of an hour with a chain that covers all stages.
fn open_whole(world: &World, dice: &mut Dice) -> Act {
    let amount = [FUNC, 200_000, 49 * FUNC][dice.roll(3)];
    let chain = chain(world, dice, None).into_iter().map(|number| (number, amount));
    let mut session = world.protocol.new_session(&chain.collect::<Vec<_>>());
    session.expires_at = world.clock().0 + 3_600;
    let name = *dice.pick(&DEVELOPERS);
    world.act(name, Msg::Escrow(Escrow::OpenSession { session }))
}

pub(super) fn force_request(world: &World, dice: &mut Dice) -> Act {
    let (session, known) = match forcible(world, dice) {
        Some((number, known)) if !dice.rarely(8) => (number, Some(known)),
        None if !dice.rarely(4) => return open_whole(world, dice),
        _ => session(world, dice),
    };
    let deployments = chain(world, dice, known);
    let row = |number: usize| Binary::from(format!("row {number}").as_bytes());
    let rows = match dice.roll(12) {
        9 => vec![],
        10 => vec![Binary::from(vec![0xff])],
        11 => vec![Binary::from(vec![b'x'; 8_193])],
        count => (0..=count % 3).map(row).collect(),
    };
    let name = owner(world, known);
    let force = Escrow::ForceRequest {
        session,
        deployments,
        rows,
    };
    world.act(sender(dice, name), Msg::Escrow(force))
}
