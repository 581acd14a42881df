//! Two of a kind: one for each system.

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first, which is the reference.
    A,
    /// The second, which is judged.
    B,
}

/// Both sides, the reference first.
pub const SIDES: [Side; 2] = [Side::A, Side::B];

impl Side {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }
}

/// One value for each side.
#[derive(Clone, Debug, Default)]
pub struct Pair<T> {
    /// The reference's.
    pub a: T,
    /// That of the system which is judged.
    pub b: T,
}

impl<T> Pair<T> {
    /// Makes one for each side.
    pub fn make(mut one: impl FnMut(Side) -> T) -> Pair<T> {
        Pair {
            a: one(Side::A),
            b: one(Side::B),
        }
    }

    /// Makes one for each side; the first error ends it.
    ///
    /// # Errors
    /// What `one` said.
    pub fn try_make<E>(mut one: impl FnMut(Side) -> Result<T, E>) -> Result<Pair<T>, E> {
        Ok(Pair {
            a: one(Side::A)?,
            b: one(Side::B)?,
        })
    }

    /// That of one side.
    pub fn of(&self, side: Side) -> &T {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }

    /// That of one side, to be changed.
    pub fn of_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }

    /// Each has what the other had.
    #[must_use]
    pub fn turned(self) -> Pair<T> {
        Pair { a: self.b, b: self.a }
    }

    /// The same done to both.
    pub fn each<U>(&self, mut work: impl FnMut(&T) -> U) -> Pair<U> {
        Pair {
            a: work(&self.a),
            b: work(&self.b),
        }
    }

    /// References to both.
    pub fn each_ref(&self) -> Pair<&T> {
        Pair {
            a: &self.a,
            b: &self.b,
        }
    }
}
