//! Which prompt is asked next: new ones, or the next turn of a session that has its former answer.

use bytes::Bytes;
use std::collections::VecDeque;

/// One conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Its identity; decides its text.
    pub id: u64,
    /// The turn that is next, from 0.
    pub turn: usize,
    /// What the picker asked to be sent back.
    pub token: Option<Bytes>,
    /// Where the last turn went.
    pub last: Option<Bytes>,
}

/// A fixed number of sessions that take turns one after the other; each is replaced when it is over.
#[derive(Debug)]
pub struct Sessions {
    limit: usize,
    turns: usize,
    open: usize,
    next_id: u64,
    waiting: VecDeque<Session>,
}

impl Sessions {
    /// `limit` sessions of `turns` turns each. With a limit of 0 every request is a session of its own.
    pub fn new(limit: usize, turns: usize) -> Self {
        Self { limit, turns: turns.max(1), open: 0, next_id: 0, waiting: VecDeque::new() }
    }

    /// The next to ask: a new session while there is room, else the one that waits longest.
    pub fn take(&mut self) -> Session {
        if self.open >= self.limit
            && let Some(session) = self.waiting.pop_front()
        {
            return session;
        }
        self.open += 1;
        self.next_id += 1;
        Session { id: self.next_id - 1, ..Session::default() }
    }

    /// Puts a session back after a turn. One that failed or has had all its turns is over.
    pub fn give_back(&mut self, mut session: Session, went_well: bool) {
        session.turn += 1;
        if self.limit > 0 && went_well && session.turn < self.turns {
            self.waiting.push_back(session);
        } else {
            self.open -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_sessions_every_request_is_new() {
        let mut sessions = Sessions::new(0, 4);
        for id in 0..5 {
            let session = sessions.take();
            assert_eq!((session.id, session.turn), (id, 0));
            sessions.give_back(session, true);
        }
    }

    #[test]
    fn sessions_take_turns_and_are_replaced_when_they_are_over() {
        let mut sessions = Sessions::new(2, 2);
        let mut seen = Vec::new();
        for _ in 0..6 {
            let session = sessions.take();
            seen.push((session.id, session.turn));
            sessions.give_back(session, true);
        }
        assert_eq!(seen, [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (3, 0)]);
    }

    #[test]
    fn a_session_that_failed_is_over() {
        let mut sessions = Sessions::new(1, 3);
        let session = sessions.take();
        sessions.give_back(session, false);
        assert_eq!(sessions.take().id, 1);
    }
}
