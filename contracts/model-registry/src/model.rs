//! A model: its metadata, owner, status, endpoints, payout rule and lineage.
//!
//! Guarantees: what is stored has passed the bounds of the wire types' documentation; parents are older than their children, so no
//! cycle can arise; a retired model never comes back.

use std::collections::BTreeSet;

use cosmwasm_std::{Addr, Storage};
use schema::{
    registry::{Endpoint, EndpointTerms, Metadata, ModelStatus, Parent, Usage},
    text, ModelId, Namespace, BPS,
};

use crate::{
    state::{Model, Recipient, METADATA, MODELS, NAMESPACES, USAGES},
    ContractError,
};

const TITLE_BYTES_MAX: usize = 128;
const DESCRIPTION_BYTES_MAX: usize = 4096;
const LICENCE_BYTES_MAX: usize = 64;
const TAGS_MAX: usize = 8;
const TAG_BYTES_MAX: usize = 32;
const HOMEPAGE_BYTES_MAX: usize = 256;
/// Settlement pays each recipient, so their number is part of everybody's gas.
const RECIPIENTS_MAX: usize = 8;
const PARENTS_MAX: usize = 4;
const ENDPOINTS_MAX: usize = 8;

/// Gives a free namespace to its first claimant.
pub(crate) fn claim_namespace(
    storage: &mut dyn Storage,
    namespace: &Namespace,
    owner: &Addr,
) -> Result<(), ContractError> {
    if let Some(owner) = NAMESPACES.may_load(storage, namespace.as_str())? {
        return Err(ContractError::NamespaceTaken {
            namespace: namespace.clone(),
            owner: owner.into(),
        });
    }
    Ok(NAMESPACES.save(storage, namespace.as_str(), owner)?)
}

/// Creates a model of the namespace's owner.
pub(crate) fn publish(
    storage: &mut dyn Storage,
    id: &ModelId,
    owner: Addr,
    metadata: &Metadata,
    payout: Vec<Recipient>,
    parents: Vec<Parent>,
    now: u64,
) -> Result<(), ContractError> {
    let namespace = id.namespace();
    if NAMESPACES.may_load(storage, namespace.as_str())?.as_ref() != Some(&owner) {
        return Err(ContractError::NotNamespaceOwner {
            namespace,
            sender: owner.into(),
        });
    }
    if MODELS.has(storage, id.as_str()) {
        return Err(ContractError::ModelExists { model: id.clone() });
    }
    check_metadata(metadata)?;
    check_payout(&payout)?;
    check_parents(&parents)?;
    for parent in &parents {
        load(storage, &parent.model)?;
    }
    let model = Model {
        owner,
        proposed_owner: None,
        status: ModelStatus::Active,
        payout,
        parents,
        endpoints: vec![],
        versions: 0,
        published_at: now,
    };
    METADATA.save(storage, id.as_str(), metadata)?;
    Ok(MODELS.save(storage, id.as_str(), &model)?)
}

pub(crate) fn load(storage: &dyn Storage, id: &ModelId) -> Result<Model, ContractError> {
    MODELS
        .may_load(storage, id.as_str())?
        .ok_or_else(|| ContractError::UnknownModel { model: id.clone() })
}

/// Applies a change of the owner's.
pub(crate) fn change(
    storage: &mut dyn Storage,
    id: &ModelId,
    sender: &Addr,
    change: impl FnOnce(&mut Model) -> Result<(), ContractError>,
) -> Result<(), ContractError> {
    let mut model = load(storage, id)?;
    model.require_owner(id, sender)?;
    change(&mut model)?;
    Ok(MODELS.save(storage, id.as_str(), &model)?)
}

pub(crate) fn update_metadata(
    storage: &mut dyn Storage,
    id: &ModelId,
    sender: &Addr,
    metadata: &Metadata,
) -> Result<(), ContractError> {
    load(storage, id)?.require_owner(id, sender)?;
    check_metadata(metadata)?;
    Ok(METADATA.save(storage, id.as_str(), metadata)?)
}

/// Hands the model to the account that it was offered to.
pub(crate) fn accept_owner(storage: &mut dyn Storage, id: &ModelId, sender: &Addr) -> Result<(), ContractError> {
    let mut model = load(storage, id)?;
    if model.proposed_owner.as_ref() != Some(sender) {
        return Err(ContractError::NotProposedOwner {
            model: id.clone(),
            sender: sender.to_string(),
        });
    }
    model.owner = sender.clone();
    model.proposed_owner = None;
    Ok(MODELS.save(storage, id.as_str(), &model)?)
}

/// Counts settled work. Counters stop at their highest value rather than fail: a settlement must not hang on a statistic.
pub(crate) fn record(storage: &mut dyn Storage, usage: &Usage) -> Result<(), ContractError> {
    let id = &usage.model;
    if !MODELS.has(storage, id.as_str()) {
        return Err(ContractError::UnknownModel { model: id.clone() });
    }
    let mut total = USAGES.may_load(storage, id.as_str())?.unwrap_or_default();
    total.units.requests = total.units.requests.saturating_add(usage.units.requests);
    total.units.units_in = total.units.units_in.saturating_add(usage.units.units_in);
    total.units.units_out = total.units.units_out.saturating_add(usage.units.units_out);
    total.paid = total.paid.saturating_add(usage.paid);
    total.sunk = total.sunk.saturating_add(usage.sunk);
    Ok(USAGES.save(storage, id.as_str(), &total)?)
}

impl Model {
    pub(crate) fn require_owner(&self, id: &ModelId, sender: &Addr) -> Result<(), ContractError> {
        if self.owner != sender {
            return Err(ContractError::NotOwner {
                model: id.clone(),
                sender: sender.to_string(),
            });
        }
        Ok(())
    }

    pub(crate) fn require_not_retired(&self, id: &ModelId) -> Result<(), ContractError> {
        if self.status == ModelStatus::Retired {
            return Err(ContractError::ModelRetired { model: id.clone() });
        }
        Ok(())
    }

    pub(crate) fn set_status(&mut self, id: &ModelId, status: ModelStatus) -> Result<(), ContractError> {
        self.require_not_retired(id)?;
        self.status = status;
        Ok(())
    }

    pub(crate) fn set_payout(&mut self, payout: Vec<Recipient>) -> Result<(), ContractError> {
        check_payout(&payout)?;
        self.payout = payout;
        Ok(())
    }

    /// Adds an endpoint or replaces its terms.
    pub(crate) fn set_endpoint(&mut self, name: &str, terms: EndpointTerms) -> Result<(), ContractError> {
        // Endpoints are named by the rule for namespaces.
        name.parse::<Namespace>()?;
        if !terms.royalty.is_bounded() {
            return Err(ContractError::RoyaltyTooHigh {
                royalty_bps: terms.royalty.royalty_bps,
                royalty_per_1k_units: terms.royalty.royalty_per_1k_units,
            });
        }
        if let Some(known) = self.endpoints.iter_mut().find(|endpoint| endpoint.name == name) {
            known.terms = terms;
            return Ok(());
        }
        let endpoints = self.endpoints.len().saturating_add(1);
        check_count("endpoints", endpoints, 1, ENDPOINTS_MAX)?;
        let name = name.to_owned();
        self.endpoints.push(Endpoint { name, terms });
        Ok(())
    }

    pub(crate) fn terms(&self, id: &ModelId, endpoint: &str) -> Result<EndpointTerms, ContractError> {
        let found = self.endpoints.iter().find(|known| known.name == endpoint);
        found
            .map(|endpoint| endpoint.terms)
            .ok_or_else(|| ContractError::UnknownEndpoint {
                model: id.clone(),
                endpoint: endpoint.chars().take(64).collect(),
            })
    }
}

fn check_metadata(metadata: &Metadata) -> Result<(), ContractError> {
    text::check_present("title", &metadata.title, TITLE_BYTES_MAX)?;
    text::check("description", &metadata.description, DESCRIPTION_BYTES_MAX)?;
    text::check_present("licence", &metadata.licence, LICENCE_BYTES_MAX)?;
    check_count("tags", metadata.tags.len(), 0, TAGS_MAX)?;
    for tag in &metadata.tags {
        text::check_present("tag", tag, TAG_BYTES_MAX)?;
    }
    check_unique("tags", metadata.tags.iter().map(String::as_str))?;
    if let Some(homepage) = &metadata.homepage {
        text::check_present("homepage", homepage, HOMEPAGE_BYTES_MAX)?;
    }
    Ok(())
}

fn check_payout(payout: &[Recipient]) -> Result<(), ContractError> {
    check_count("recipients", payout.len(), 1, RECIPIENTS_MAX)?;
    check_unique("recipients", payout.iter().map(|recipient| recipient.address.as_str()))?;
    check_whole("recipients", payout.iter().map(|recipient| recipient.bps))
}

fn check_parents(parents: &[Parent]) -> Result<(), ContractError> {
    check_count("parents", parents.len(), 0, PARENTS_MAX)?;
    check_unique("parents", parents.iter().map(|parent| parent.model.as_str()))?;
    let sum = checked_sum("parents", parents.iter().map(|parent| parent.bps))?;
    if sum > BPS.into() {
        return Err(ContractError::ParentsTakeTooMuch { sum });
    }
    Ok(())
}

pub(crate) fn check_count(field: &str, found: usize, min: usize, max: usize) -> Result<(), ContractError> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    let field = field.to_owned();
    Err(ContractError::WrongCount { field, found, min, max })
}

/// The shares are at least 1 each and one whole together.
pub(crate) fn check_whole(field: &str, shares: impl Iterator<Item = u16>) -> Result<(), ContractError> {
    let sum = checked_sum(field, shares)?;
    if sum != u32::from(BPS) {
        let field = field.to_owned();
        return Err(ContractError::WrongSum { field, sum });
    }
    Ok(())
}

fn checked_sum(field: &str, shares: impl Iterator<Item = u16>) -> Result<u32, ContractError> {
    let mut sum = 0u32;
    for share in shares {
        if share == 0 {
            let field = field.to_owned();
            return Err(ContractError::ZeroShare { field });
        }
        sum = sum.saturating_add(share.into());
    }
    Ok(sum)
}

fn check_unique<'a>(field: &str, values: impl Iterator<Item = &'a str>) -> Result<(), ContractError> {
    let mut seen = BTreeSet::new();
    for value in values {
        if !seen.insert(value) {
            return Err(ContractError::Duplicate {
                field: field.to_owned(),
                value: value.to_owned(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use schema::registry::Task;

    use super::*;

    fn recipients(shares: &[(&str, u16)]) -> Vec<Recipient> {
        let recipient = |(name, bps): &(&str, u16)| Recipient {
            address: Addr::unchecked(*name),
            bps: *bps,
        };
        shares.iter().map(recipient).collect()
    }

    fn parents(shares: &[(&str, u16)]) -> Vec<Parent> {
        let parent = |(name, bps): &(&str, u16)| Parent {
            model: name.parse().unwrap(),
            bps: *bps,
        };
        shares.iter().map(parent).collect()
    }

    #[test]
    fn a_payout_rule_is_one_whole_of_unique_recipients() {
        assert_eq!(check_payout(&recipients(&[("a", 10_000)])), Ok(()));
        assert_eq!(check_payout(&recipients(&[("a", 1), ("b", 9_999)])), Ok(()));
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        let crowd: Vec<_> = names.map(|name| (name, 1u16)).to_vec();
        for (shares, refused) in [
            (vec![], "0 recipients, 1 to 8 are allowed"),
            (crowd, "9 recipients, 1 to 8 are allowed"),
            (vec![("a", 5_000), ("a", 5_000)], "a is twice among the recipients"),
            (
                vec![("a", 0), ("b", 10_000)],
                "each of the recipients has at least 1 bps",
            ),
            (vec![("a", 9_999)], "recipients sum to 9999 bps, not 10000"),
            (vec![("a", 10_000), ("b", 1)], "recipients sum to 10001 bps, not 10000"),
        ] {
            assert_eq!(check_payout(&recipients(&shares)).unwrap_err().to_string(), refused);
        }
    }

    #[test]
    fn parents_are_few_unique_and_take_one_whole_at_most() {
        assert_eq!(check_parents(&[]), Ok(()));
        assert_eq!(check_parents(&parents(&[("a/b", 4_000), ("a/c", 6_000)])), Ok(()));
        for (shares, refused) in [
            (
                vec![("a/b", 4_000), ("a/c", 6_001)],
                "parents take 10001 bps, at most 10000 are there",
            ),
            (vec![("a/b", 1), ("a/b", 1)], "a/b is twice among the parents"),
            (vec![("a/b", 0)], "each of the parents has at least 1 bps"),
            (
                vec![("a/1", 1), ("a/2", 1), ("a/3", 1), ("a/4", 1), ("a/5", 1)],
                "5 parents, 0 to 4 are allowed",
            ),
        ] {
            assert_eq!(check_parents(&parents(&shares)).unwrap_err().to_string(), refused);
        }
    }

    #[test]
    fn metadata_has_the_bounds_of_its_documentation() {
        let good = Metadata {
            title: "t".repeat(128),
            description: "d".repeat(4096),
            task: Task::Embeddings,
            licence: "Apache-2.0".into(),
            tags: (0..8).map(|n| format!("tag{n}")).collect(),
            homepage: Some("h".repeat(256)),
            card: None,
        };
        assert_eq!(check_metadata(&good), Ok(()));
        let refused = |change: fn(&mut Metadata)| {
            let mut metadata = good.clone();
            change(&mut metadata);
            check_metadata(&metadata).unwrap_err().to_string()
        };
        assert_eq!(
            refused(|m| m.title.push('t')),
            "title is 129 bytes long, at most 128 are allowed"
        );
        assert_eq!(refused(|m| m.title.clear()), "title is empty");
        assert_eq!(
            refused(|m| m.title = "a\u{1b}[2J".into()),
            "title contains a control character"
        );
        assert_eq!(
            refused(|m| m.description.push('d')),
            "description is 4097 bytes long, at most 4096 are allowed"
        );
        assert_eq!(refused(|m| m.licence.clear()), "licence is empty");
        assert_eq!(
            refused(|m| m.licence = "l".repeat(65)),
            "licence is 65 bytes long, at most 64 are allowed"
        );
        assert_eq!(refused(|m| m.tags.push("x".into())), "9 tags, 0 to 8 are allowed");
        assert_eq!(refused(|m| m.tags[1] = "tag0".into()), "tag0 is twice among the tags");
        assert_eq!(refused(|m| m.tags[1].clear()), "tag is empty");
        assert_eq!(
            refused(|m| m.tags[1] = "x".repeat(33)),
            "tag is 33 bytes long, at most 32 are allowed"
        );
        assert_eq!(
            refused(|m| m.homepage = Some("h".repeat(257))),
            "homepage is 257 bytes long, at most 256 are allowed"
        );
    }
}
