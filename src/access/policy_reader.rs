//! Reads the JSON form of a policy strictly: what is unknown, repeated, missing or beyond its bounds is a flaw. One reading finds all
//! flaws, each with its path and its line.
//!
//! What has a flaw is read as if it were not there: a policy is handed out only if none was found.
use super::account_set::{AccountSet, BEGINNINGS_MAX};
use super::policy::{place, AssetRule, Ceilings, Policy, FORM};
use super::policy_fault::{PolicyFlaw, PolicyFlaws};
use super::revocations::{Revocations, Revoked};
use super::written_json::Json;
use crate::domain::{Amount, Asset, Op, Quota, QuotaScope, Read, QUOTA_MAX};
use std::collections::HashSet;
use std::ops::RangeInclusive;

/// Most assets of a policy: cores look theirs up one by one, and never forget one.
const ASSETS_MAX: usize = 1024;
/// Most flaws that are told one by one.
const FLAWS_MAX: usize = 20;
/// Longest part of a path that is told, in characters.
const SHOWN_CHARS_MAX: usize = 80;
/// Names at least this similar are offered in place of an unknown one.
const SIMILARITY_MIN: f64 = 0.7;

/// The members of a policy, those first that have to be there.
const MEMBERS: [&str; 10] =
    ["version", "operations", "assets", "quotas", "frozen", "denied", "revoked", "degraded", "form", "$schema"];
const REQUIRED: usize = 3;

const REPEATED: &str = "repeated; write it once";
const SUBJECTS: &str = "subjects, 1 to 128 bytes without control characters each";

/// The policy of a text, or every flaw of it.
pub(super) fn read(text: &[u8]) -> Result<Policy, PolicyFlaws> {
    let json: Json<'_> = serde_json::from_slice(text).map_err(|error| unparsed(&error))?;
    let mut reader = Reader { text, flaws: Vec::new() };
    // What is missing in the whole is told at its end.
    let whole = Place { path: String::new(), end: text.trim_ascii_end().len() };
    let policy = reader.policy((whole, &json));
    let form = json.object().into_iter().flatten().find(|(name, _)| name == "form").and_then(|(_, form)| form.natural());
    let other_form = form.filter(|form| *form != u64::from(FORM));
    if other_form.is_some() {
        // Whatever else is wrong by the rules of this form may be right by those of that one.
        reader.flaws.retain(|(at, _)| at.path == "form");
    }
    if reader.flaws.is_empty() {
        return Ok(policy);
    }
    Err(PolicyFlaws { other_form, ..reader.told() })
}

/// The one flaw of a text that is no JSON.
fn unparsed(error: &serde_json::Error) -> PolicyFlaws {
    let (line, column, told) = (error.line(), error.column(), error.to_string());
    let place = format!(" at line {line} column {column}");
    let message = told.strip_suffix(place.as_str()).unwrap_or(&told).to_owned();
    PolicyFlaws { told: vec![PolicyFlaw { path: String::new(), message, line, column }], more: 0, other_form: None }
}

fn unknown(name: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|known| (strsim::jaro_winkler(name, known), known)).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((similarity, nearest)) if similarity >= SIMILARITY_MIN => format!("unknown name; did you mean {nearest}?"),
        Some(_) | None => format!("unknown name; known are {}", known.join(", ")),
    }
}

/// A text of the file as a part of a path: neither endless, nor able to steer a terminal.
fn shown(text: &str) -> String {
    let cut = if text.chars().nth(SHOWN_CHARS_MAX).is_some() { "..." } else { "" };
    text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).chain(cut.chars()).collect()
}

/// Where something stands: its path, and the length of the text up to the end of its name.
#[derive(Clone)]
struct Place {
    path: String,
    end: usize,
}

/// A value, and where it stands.
type Member<'j> = (Place, &'j Json<'j>);

struct Reader<'t> {
    text: &'t [u8],
    flaws: Vec<(Place, String)>,
}

impl Reader<'_> {
    fn policy(&mut self, whole: Member<'_>) -> Policy {
        let [version, operations, assets, quotas, frozen, denied, revoked, degraded, form, schema] =
            self.members(Some(whole), &MEMBERS, REQUIRED);
        if let Some((at, json)) = form {
            let this = json.natural().filter(|form| *form == u64::from(FORM));
            let others = "ronctl migrate brings older ones up to date, newer ones are for newer programs";
            self.or_flaw(this, &at, || format!("this program reads form {FORM} alone; {others}"));
        }
        if let Some((at, json)) = schema {
            self.or_flaw(json.text(), &at, || "has to be a text, the address of a JSON Schema".to_owned());
        }
        let served = if degraded.is_some() {
            self.named(degraded, &Read::ALL.map(Read::as_str))
        } else {
            // Reads have always gone on while writes did not; who wants them refused lists those that are not to be.
            [true; Read::ALL.len()]
        };
        let [accounts, subjects] = self.members(denied, &["accounts", "subjects"], 0);
        let denied_subjects = self.revoked(subjects, SUBJECTS, Revoked::subject);
        let mut denied_subjects: Vec<Box<str>> = denied_subjects.iter().map(|subject| subject.name().into()).collect();
        denied_subjects.sort_unstable();
        let [tokens, subjects, keys] = self.members(revoked, &["tokens", "subjects", "keys"], 0);
        let mut revoked = self.revoked(tokens, "token ids, 32 digits of 0-9 a-f each", Revoked::token);
        revoked.extend(self.revoked(subjects, SUBJECTS, Revoked::subject));
        revoked.extend(self.revoked(keys, "key ids, 1 to 32 characters of a-z 0-9 - each", Revoked::key));
        revoked.sort_unstable();
        Policy {
            version: version.and_then(|version| self.natural(version, 0..=u64::MAX)).unwrap_or_default(),
            operations: self.named(operations, &Op::ALL.map(Op::as_str)),
            assets: self.assets(assets),
            quotas: self.members(quotas, &QuotaScope::ALL.map(QuotaScope::as_str), 0).map(|bucket| self.quota(bucket?)),
            frozen: self.accounts(frozen),
            denied: self.accounts(accounts),
            denied_subjects,
            revocations: Revocations::of(&revoked),
            revoked,
            degraded: served,
        }
    }

    fn assets(&mut self, assets: Option<Member<'_>>) -> Vec<AssetRule> {
        let mut rules: Vec<AssetRule> = Vec::new();
        let Some((at, json)) = assets else { return rules };
        let Some(entries) = self.entries(&at, json, || "of asset names".to_owned()) else { return rules };
        if !(1..=ASSETS_MAX).contains(&entries.len()) {
            self.flaw(at, format!("1 to {ASSETS_MAX} assets have to be listed, and {} are", entries.len()));
            return rules;
        }
        for (at, name, json) in entries {
            if Asset::new(name).is_none() {
                self.flaw(at.clone(), "an asset is 1 to 16 characters of a-z 0-9 _");
            }
            match rules.binary_search_by(|rule| (*rule.name).cmp(name)) {
                Ok(_) => self.flaw(at, REPEATED),
                Err(index) => rules.insert(index, self.rule(name, (at, json))),
            }
        }
        rules
    }

    fn rule(&mut self, name: &str, rule: Member<'_>) -> AssetRule {
        let both = self.members(Some(rule), &["amount_max", "daily_max"], 0);
        let [amount_max, daily_max] = both.map(|ceilings| self.members(ceilings, &Op::ALL.map(Op::as_str), 0));
        if let Some((at, _)) = &daily_max[place(Op::Issue)] {
            self.flaw(at.clone(), "an issue debits nobody; limit it by amount_max");
        }
        let [amount_max, daily_max]: [Ceilings; 2] =
            [amount_max, daily_max].map(|ceilings| ceilings.map(|units| self.amount(units?)));
        AssetRule { name: name.into(), amount_max, daily_max }
    }

    fn amount(&mut self, (at, json): Member<'_>) -> Option<Amount> {
        let amount = json.text().and_then(Amount::parse);
        self.or_flaw(amount, &at, || "has to be a decimal string above zero, in minor units, such as \"1000\"".to_owned())
    }

    fn quota(&mut self, bucket: Member<'_>) -> Option<Quota> {
        let bounds = self.members(Some(bucket), &["rate", "burst"], 2);
        let [rate, burst] = bounds.map(|bound| self.natural(bound?, 1..=u64::from(QUOTA_MAX)));
        let [rate, burst] = [rate?, burst?].map(|number| u32::try_from(number).expect("the range fits"));
        Some(Quota::new(rate, burst).expect("both are in its range"))
    }

    fn natural(&mut self, (at, json): Member<'_>, range: RangeInclusive<u64>) -> Option<u64> {
        let number = json.natural().filter(|number| range.contains(number));
        self.or_flaw(number, &at, || format!("has to be an unsigned integer from {} to {}", range.start(), range.end()))
    }

    fn accounts(&mut self, list: Option<Member<'_>>) -> AccountSet {
        let mut set = AccountSet::default();
        for (at, text) in self.texts(list, "accounts") {
            if !set.add(text) {
                let wanted = "has to be an account, or the beginning of one followed by *";
                self.flaw(at, format!("{wanted}, of which there can be {BEGINNINGS_MAX}"));
            }
        }
        set
    }

    /// What a list names of one kind of what can be revoked.
    fn revoked(&mut self, list: Option<Member<'_>>, what: &str, read: fn(&str) -> Option<Revoked>) -> Vec<Revoked> {
        let texts = self.texts(list, what);
        let found = texts.into_iter().map(|(at, text)| self.or_flaw(read(text), &at, || format!("not one of {what}")));
        found.flatten().collect()
    }

    /// Which of the known names a list has.
    fn named<const N: usize>(&mut self, list: Option<Member<'_>>, known: &[&str; N]) -> [bool; N] {
        let mut listed = [false; N];
        for (at, text) in self.texts(list, "names") {
            match known.iter().position(|name| *name == text) {
                Some(index) => listed[index] = true,
                None => self.flaw(at, unknown(text, known)),
            }
        }
        listed
    }

    /// The texts of a list, each once, with their places.
    fn texts<'j>(&mut self, list: Option<Member<'j>>, what: &str) -> Vec<(Place, &'j str)> {
        let (mut once, mut seen) = (Vec::new(), HashSet::new());
        let Some((whole, json)) = list else { return once };
        let texts = json.list().and_then(|items| items.iter().map(Json::text).collect::<Option<Vec<_>>>());
        for text in self.or_flaw(texts, &whole, || format!("has to be a list of {what}")).unwrap_or_default() {
            let at = self.place(&whole, ", ", text);
            if seen.insert(text) {
                once.push((at, text));
            } else {
                self.flaw(at, REPEATED);
            }
        }
        once
    }

    /// The members of an object that can have these, each in the place of its name. The first `required` have to be there.
    fn members<'j, const N: usize>(
        &mut self,
        object: Option<Member<'j>>,
        names: &[&str; N],
        required: usize,
    ) -> [Option<Member<'j>>; N] {
        let mut found: [Option<Member<'j>>; N] = std::array::from_fn(|_| None);
        let Some((whole, json)) = object else { return found };
        let Some(entries) = self.entries(&whole, json, || format!("with {}", names.join(", "))) else { return found };
        for (at, name, value) in entries {
            match names.iter().position(|known| *known == name) {
                Some(index) if found[index].is_some() => self.flaw(at, REPEATED),
                Some(index) => found[index] = Some((at, value)),
                None => self.flaw(at, unknown(name, names)),
            }
        }
        for (name, _) in names.iter().zip(&found).take(required).filter(|(_, member)| member.is_none()) {
            let at = self.place(&whole, ".", name);
            self.flaw(at, "missing; write it");
        }
        found
    }

    /// All that an object has, with names and places.
    fn entries<'j>(
        &mut self,
        whole: &Place,
        json: &'j Json<'j>,
        wanted: impl FnOnce() -> String,
    ) -> Option<Vec<(Place, &'j str, &'j Json<'j>)>> {
        let entries = self.or_flaw(json.object(), whole, || format!("has to be an object {}", wanted()))?;
        Some(entries.iter().map(|(name, value)| (self.place(whole, ".", name), &**name, value)).collect())
    }

    /// Where a name or a text stands that belongs to a whole. One that has escapes or is missing is no part of the text of the file: it is
    /// told where the whole is.
    fn place(&self, whole: &Place, separator: &str, part: &str) -> Place {
        let text = self.text.as_ptr_range();
        let path = if whole.path.is_empty() { shown(part) } else { format!("{}{separator}{}", whole.path, shown(part)) };
        let is_part = text.contains(&part.as_ptr());
        // Up to its closing quote.
        let end = if is_part { part.as_ptr() as usize - text.start as usize + part.len() + 1 } else { whole.end };
        Place { path, end }
    }

    fn flaw(&mut self, at: Place, message: impl Into<String>) {
        self.flaws.push((at, message.into()));
    }

    /// What was found; that nothing was is a flaw.
    fn or_flaw<T>(&mut self, found: Option<T>, at: &Place, message: impl FnOnce() -> String) -> Option<T> {
        if found.is_none() {
            self.flaw(at.clone(), message());
        }
        found
    }

    /// The flaws that were found, in the order of the text.
    fn told(self) -> PolicyFlaws {
        let Self { text, mut flaws } = self;
        flaws.sort_by_key(|(at, _)| at.end);
        let more = flaws.len().saturating_sub(FLAWS_MAX);
        let told = flaws.into_iter().take(FLAWS_MAX).map(|(Place { path, end }, message)| {
            let before = &text[..end];
            let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            PolicyFlaw { path, message, line, column: end - line_start }
        });
        PolicyFlaws { told: told.collect(), more, other_form: None }
    }
}
