//! `bot-detection`: turns away programs that say in `User-Agent` that they are some.
//!
//! Deviation from Kong: the list of known bots is our own. Patterns that need look-around are refused.

use crate::plugin::{Access, Answer, Entity, Phases, Plugin, Step};
use http::{StatusCode, header};
use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use serde::Deserialize;

/// Most memory of a compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Names that programs give themselves, and words in them. What they have in common is looked for by words.
const BOTS: &str = r"(?x)
    \b (?i: [a-z0-9._-]* (?: spider | crawl(er|ing)? | scrap(e|er|y|ing) | archiver | indexer ) [a-z0-9]* )
    | \b [A-Za-z0-9._-]* [Bb]ot (?: \b | [0-9] | - )
    | \b (?i: facebookexternalhit | slurp | ia_archiver | mediapartners-google | bingpreview | wordpress
        | nutch | heritrix | larbin | htdig | httrack | pingdom | zyborg | teoma | ask\ jeeves | netvibes
        | embedly | feedfetcher | w3c_validator | whatweb | yandex[a-z]+ | yahooseeker | google-http-java-client
        | apache-httpclient | python-urllib | winhttp | tlsprober | httpmonitor )
";
/// A telephone whose name ends like that of a bot.
const NO_BOT: &str = "(?i)cubot";

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    allow: Option<Vec<String>>,
    deny: Option<Vec<String>>,
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct BotDetection {
    allow: RegexSet,
    deny: RegexSet,
    bots: Regex,
    no_bots: Regex,
}

impl Plugin for BotDetection {
    const NAME: &'static str = "bot-detection";
    const PRIORITY: i32 = 2500;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Fields;
    type State = ();

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        let one = |pattern: &str| {
            // All that is looked for is ASCII, and a fraction of the size.
            let regex = RegexBuilder::new(pattern).unicode(false).build();
            regex.map_err(|error| error.to_string())
        };
        Ok(Self {
            allow: set(fields.allow)?,
            deny: set(fields.deny)?,
            bots: one(BOTS)?,
            no_bots: one(NO_BOT)?,
        })
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        let mut agents = request.headers.get_all(header::USER_AGENT).iter();
        let Some(agent) = agents.next() else {
            return Step::Continue;
        };
        if agents.next().is_some() {
            let message = "Only one User-Agent header allowed";
            return Step::Answer(Answer::message(StatusCode::BAD_REQUEST, message));
        }
        let agent = String::from_utf8_lossy(agent.as_bytes());
        let agent = agent.trim();
        let is_bot = || self.bots.is_match(agent) && !self.no_bots.is_match(agent);
        if !self.allow.is_match(agent) && (self.deny.is_match(agent) || is_bot()) {
            return Step::Answer(Answer::message(StatusCode::FORBIDDEN, "Forbidden"));
        }
        Step::Continue
    }
}

fn set(patterns: Option<Vec<String>>) -> Result<RegexSet, String> {
    let patterns = patterns.unwrap_or_default();
    let set = RegexSetBuilder::new(patterns)
        .size_limit(PATTERN_BYTES_MAX)
        .build();
    set.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_from_browsers() {
        let one = |pattern: &str| RegexBuilder::new(pattern).unicode(false).build().unwrap();
        let (bots, no_bots) = (one(BOTS), one(NO_BOT));
        let is_bot = |agent: &str| bots.is_match(agent) && !no_bots.is_match(agent);
        for agent in [
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
            "Twitterbot/1.0",
            "facebookexternalhit/1.1",
            "Mozilla/5.0 (compatible; Yahoo! Slurp; http://help.yahoo.com/help/us/ysearch/slurp)",
            "Mozilla/5.0 (compatible; Baiduspider/2.0)",
            "Scrapy/1.0 (+http://scrapy.org)",
            "MJ12bot/v1.4.5",
            "Mozilla/5.0 (compatible; YandexImages/3.0)",
        ] {
            assert!(is_bot(agent), "{agent}");
        }
        for agent in [
            "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0",
            "Mozilla/5.0 (Linux; Android 5.1; CUBOT X9) AppleWebKit/537.36",
            "curl/8.0",
            "HTTPie/3.2",
            "",
        ] {
            assert!(!is_bot(agent), "{agent}");
        }
    }
}
