//! POSIX over rows.

pub mod seams;
