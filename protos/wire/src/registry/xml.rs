//! The XML of answers: the short form of QUERY, the long form of TRANSFER (draft-liefooghe-castgate-02 §6.5).
