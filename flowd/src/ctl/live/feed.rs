//! What the view asks the daemon at each look.

use super::model::Model;
use crate::{
    ctl::{
        client::{self, Client},
        error::CtlError,
        filters::Parameters,
    },
    flows::FlowId,
    wire,
};

/// One look.
#[derive(Clone, Debug)]
pub(super) struct Question {
    rates: Parameters,
    flow: Option<FlowId>,
}

/// The answer to it.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: wire::Status,
    pub(super) rates: wire::Rates,
    /// The flow that is looked at in detail, or why it cannot be told.
    pub(super) flow: Option<(FlowId, Result<wire::FlowDetail, String>)>,
}

impl Question {
    /// What the state of the view asks for; `filters` are those of the command line, which keys
    /// make narrower or replace.
    pub(super) fn of(model: &Model, filters: &Parameters) -> Self {
        let mut rates = filters.clone();
        let mut set = |name: &'static str, value: String| {
            rates.retain(|(known, _)| *known != name);
            rates.push((name, value));
        };
        if let Some(peer) = &model.only_peer {
            set("peer", peer.public_key.clone());
        }
        if model.only_denied {
            set("verdict", "deny".to_owned());
        }
        set("sort", model.sort.word().to_owned());
        set("order", model.order.word().to_owned());
        set("limit", model.limit().to_string());
        Self { rates, flow: model.wanted_flow() }
    }

    /// Asks.
    pub(super) async fn ask(self, client: Client<'_>) -> Result<Answer, CtlError> {
        let Self { rates, flow } = self;
        let detail = async {
            let flow = flow?;
            let path = format!("/v1/flows/{}", client::encode(&flow.to_string()));
            let told = client.query(&path, &[]).await;
            Some((flow, told.map_err(|error: CtlError| error.to_string())))
        };
        let (status, rates, flow) =
            tokio::join!(client.get("/v1/status", &[]), client.get("/v1/rates", &rates), detail);
        Ok(Answer { status: status?, rates: rates?, flow })
    }
}

#[cfg(test)]
mod tests {
    use super::{Model, Question};
    use crate::ctl::live::model::OnlyPeer;

    #[test]
    fn keys_make_the_question_narrower_than_the_command_line() {
        let filters = vec![("peer", "alice".to_owned()), ("port", "443".to_owned())];
        let told = |model: &Model| -> Vec<String> {
            let question = Question::of(model, &filters);
            question.rates.iter().map(|(name, value)| format!("{name}={value}")).collect()
        };
        let mut model = Model::default();
        assert_eq!(
            told(&model),
            ["peer=alice", "port=443", "sort=rate", "order=desc", "limit=500"]
        );
        model.only_peer = Some(OnlyPeer { public_key: "KEY=".into(), name: "bob".into() });
        (model.only_denied, model.text) = (true, "x".to_owned());
        let narrow = ["port=443", "peer=KEY=", "verdict=deny", "sort=rate", "order=desc"];
        assert_eq!(told(&model)[..5], narrow);
        assert_eq!(told(&model)[5], "limit=5000");
    }
}
