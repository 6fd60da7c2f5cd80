//! Rankings as one HTML file that needs nothing else (feature `report`).
