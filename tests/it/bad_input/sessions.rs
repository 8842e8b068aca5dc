//! What is wrong with messages about sessions. Session 1 is dora's, with anna's deployment 1 and bea's 3.

use cosmwasm_std::{Binary, Uint128};
use fxn_tests::{Protocol, DEVELOPER, FUNC};
use schema::escrow::{ExecuteMsg as Escrow, Gateway, NewSession};

use super::answers::Table;

impl Table {
    fn session(&mut self, wrong: &str, change: impl FnOnce(&mut NewSession)) {
        let mut session = self.protocol.new_session(&[(1, FUNC)]);
        change(&mut session);
        self.about_sessions(DEVELOPER, "open_session", wrong, &Escrow::OpenSession { session });
    }

    fn about_sessions(&mut self, name: &str, message: &str, wrong: &str, msg: &Escrow) {
        let escrow = self.protocol.contracts.royalty_escrow.clone();
        self.refuses(name, &escrow, message, wrong, msg);
    }
}

pub(super) fn sessions(table: &mut Table) {
    openings(table);
    top_ups(table);
    endings(table);
    forced(table);
    table.about_sessions(
        "mallory",
        "settle_vouchers",
        "no vouchers",
        &Escrow::SettleVouchers { vouchers: vec![] },
    );
    let vouchers = vec![table.protocol.voucher(1, 1, 1, 1); 33];
    table.about_sessions(
        "mallory",
        "settle_vouchers",
        "33 vouchers",
        &Escrow::SettleVouchers { vouchers },
    );
}

fn openings(table: &mut Table) {
    table.session("unknown model", |session| session.model = "demo/none".parse().unwrap());
    table.session("unknown endpoint", |session| session.endpoint = "e".repeat(10_000));
    table.session("unknown version", |session| session.version = Some(9));
    table.session("no allocations", |session| session.allocations.clear());
    table.session("17 allocations", |session| {
        session.allocations = vec![session.allocations[0]; 17]
    });
    table.session("a deployment twice", |session| {
        session.allocations = vec![session.allocations[0]; 2]
    });
    table.session("unknown deployment", |session| {
        session.allocations[0].deployment = u64::MAX
    });
    table.session("nothing for a deployment", |session| {
        session.allocations[0].amount = Uint128::zero()
    });
    table.session("more than its bond", |session| {
        session.allocations[0].amount = (50 * FUNC + 1).into()
    });
    table.session("more than anybody has", |session| {
        session.allocations[0].amount = Uint128::MAX
    });
    table.session("more than she has", |session| {
        session.allocations = Protocol::allocations(&[(1, 50 * FUNC), (2, 50 * FUNC)])
    });
    table.session("expired", |session| session.expires_at = 1);
    table.session("too long", |session| session.expires_at = u64::MAX);
    table.session("a key that is no key", |session| session.session_key.0[0] = 9);
    table.session("a gateway that takes too much", |session| {
        let address = "wasm1x".into();
        session.gateway = Some(Gateway { address, bps: 2_001 });
    });
}

fn top_ups(table: &mut Table) {
    let top_up = |session, allocations: &[(u64, u128)]| Escrow::TopUp {
        session,
        allocations: Protocol::allocations(allocations),
    };
    for (name, wrong, msg) in [
        (DEVELOPER, "unknown session", top_up(9, &[(1, FUNC)])),
        ("mallory", "somebody else's", top_up(1, &[(1, FUNC)])),
        (DEVELOPER, "nothing named", top_up(1, &[])),
        (DEVELOPER, "no amount", top_up(1, &[(1, 0)])),
        (DEVELOPER, "more than its bond", top_up(1, &[(1, 49 * FUNC + 1)])),
        (DEVELOPER, "unknown deployment", top_up(1, &[(77, FUNC)])),
        (DEVELOPER, "too little for a new one", top_up(1, &[(2, 1)])),
        (DEVELOPER, "17 deployments", top_up(1, &[(1, FUNC); 17])),
    ] {
        table.about_sessions(name, "top_up", wrong, &msg);
    }
}

fn endings(table: &mut Table) {
    let close = |session, consents| Escrow::CloseSession { session, consents };
    let leave = |session, deployment| Escrow::LeaveSession { session, deployment };
    let protocol = &table.protocol;
    let mut stray = protocol.consent("anna", 1, 1, 0);
    stray.deployment = 2;
    let rows = [
        (DEVELOPER, "close_session", "unknown session", close(9, vec![])),
        ("mallory", "close_session", "somebody else's", close(1, vec![])),
        (
            DEVELOPER,
            "close_session",
            "consent to another voucher",
            close(1, vec![protocol.consent("anna", 1, 1, 7)]),
        ),
        (
            DEVELOPER,
            "close_session",
            "consent for another session",
            close(1, vec![protocol.consent("anna", 2, 1, 0)]),
        ),
        (
            DEVELOPER,
            "close_session",
            "consent of another host",
            close(1, vec![protocol.consent("bea", 1, 1, 0)]),
        ),
        (
            DEVELOPER,
            "close_session",
            "consent of no member",
            close(1, vec![stray]),
        ),
        (DEVELOPER, "close_session", "17 consents", close(1, vec![stray; 17])),
        ("anna", "leave_session", "unknown session", leave(9, 1)),
        ("anna", "leave_session", "a deployment that is not in it", leave(1, 2)),
        ("anna", "leave_session", "somebody else's deployment", leave(1, 3)),
        (DEVELOPER, "leave_session", "the owner", leave(1, 1)),
        (
            "mallory",
            "finalise_session",
            "unknown session",
            Escrow::FinaliseSession { session: 9 },
        ),
        (
            "mallory",
            "finalise_session",
            "before its date",
            Escrow::FinaliseSession { session: 1 },
        ),
    ];
    for (name, message, wrong, msg) in rows {
        table.about_sessions(name, message, wrong, &msg);
    }
}

fn forced(table: &mut Table) {
    let force = |session, deployments: &[u64], rows: Vec<Vec<u8>>| Escrow::ForceRequest {
        session,
        deployments: deployments.to_vec(),
        rows: rows.into_iter().map(Binary::from).collect(),
    };
    let row = || vec![b"row".to_vec()];
    for (name, wrong, msg) in [
        (DEVELOPER, "unknown session", force(9, &[1, 3], row())),
        ("mallory", "somebody else's", force(1, &[1, 3], row())),
        (DEVELOPER, "no deployments", force(1, &[], row())),
        (DEVELOPER, "17 deployments", force(1, &[1; 17], row())),
        (DEVELOPER, "a deployment that is not in it", force(1, &[1, 2], row())),
        (DEVELOPER, "the wrong order", force(1, &[3, 1], row())),
        (DEVELOPER, "a deployment twice", force(1, &[1, 1], row())),
        (DEVELOPER, "stages left out", force(1, &[1, 3], row())),
        (DEVELOPER, "no rows", force(1, &[1, 3], vec![])),
        (DEVELOPER, "a row that is no text", force(1, &[1, 3], vec![vec![0xff]])),
        (
            DEVELOPER,
            "a row above 8 KiB",
            force(1, &[1, 3], vec![vec![b'a'; 8_193]]),
        ),
    ] {
        table.about_sessions(name, "force_request", wrong, &msg);
    }
}
